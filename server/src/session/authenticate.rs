//! `auth`: from a token to an authenticated connection, or to a refusal.
//!
//! A refusal that repeats is answered late (WebSocket API, section 6): it is held, with all that
//! the client sent behind it, until the session's timing releases it. Nothing sleeps meanwhile: what
//! the connection is owed goes out, and its end is noticed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use valtronics_protocol::{
    close::CloseCode,
    error::{ErrorCode, TokenFault},
    request::Message,
    response::{AuthResponse, Failure, Response},
};

use super::requests::{Requests, Step};
use crate::{auth::Claims, clock, engine::Command, limits::Refused, state::to_message};

/// A refusal, and how it ends the connection, if it does.
#[derive(Debug)]
pub(super) struct Refusal {
    message: Message,
    failure: Failure,
    close: Option<(CloseCode, String)>,
}

impl Requests {
    pub(super) fn authenticate(
        &mut self,
        message: Message,
        token: Result<String, TokenFault>,
        now: Instant,
    ) -> Step {
        let verified = match &token {
            Ok(token) => self.gate.keys.verify(token, clock::now()),
            Err(fault) => Err(*fault),
        };
        match verified {
            Ok(claims) => self.admit(message, claims, now),
            Err(fault) => self.refuse_token(message, &token.unwrap_or_default(), fault, now),
        }
    }

    /// Lets a user in, or takes his new token.
    fn admit(&mut self, message: Message, claims: Claims, now: Instant) -> Step {
        if let Some(known) = &self.claims {
            if known.sub != claims.sub {
                let why = "the new token is another user's: open a new connection for it";
                self.fail(&message, Failure::new(ErrorCode::Forbidden, why));
                return Step::Answered;
            }
            let regrant = Command::Regrant { session: self.id, claims: claims.clone() };
            self.commands.push(regrant);
        } else {
            let admitted = self.gate.admission().authenticated(self.address, &claims.sub, now);
            if let Err(refused) = admitted {
                return self.refuse_user(message, refused, &claims.sub, now);
            }
            self.commands.push(Command::Attach {
                session: self.id,
                outbox: Arc::clone(&self.outbox),
                claims: claims.clone(),
            });
            if let Some(subscribe) = self.endpoint.clone() {
                self.commands.push(Command::Subscribe { session: self.id, subscribe, id: None });
            }
        }
        let response = AuthResponse {
            success: true,
            user: Some(claims.sub.to_string()),
            expires_at: Some(claims.expires_at),
            scopes: Some(claims.scopes.names()),
            failure: None,
            id: message.id,
        };
        self.outbox.push(to_message(&Response::AuthResponse(response)));
        let expires_at = claims.expires_at;
        self.claims = Some(claims);
        Step::Authenticated { expires_at }
    }

    fn refuse_user(
        &mut self,
        message: Message,
        refused: Refused,
        user: &str,
        now: Instant,
    ) -> Step {
        tracing::warn!(address = %self.address, user, reason = %refused, "refused a connection");
        let retry_after = refused.retry_after_seconds();
        let code = match refused {
            Refused::UserFull | Refused::Full => ErrorCode::ConnectionLimit,
            Refused::UserRate { .. } | Refused::Address { .. } => ErrorCode::RateLimited,
        };
        let failure = Failure::new(code, refused.to_string());
        let failure = Failure { retry_after: Some(retry_after), ..failure };
        let reason = format!("{refused}; retry_after={retry_after}");
        let delay = self.gate.admission().refused_user(self.address, user, now);
        let close = Some((CloseCode::Limited, reason));
        self.refuse(Refusal { message, failure, close }, delay, now)
    }

    fn refuse_token(
        &mut self,
        message: Message,
        token: &str,
        fault: TokenFault,
        now: Instant,
    ) -> Step {
        tracing::warn!(address = %self.address, reason = ?fault, "refused a token");
        let why = match fault {
            TokenFault::Missing => "auth needs a token",
            TokenFault::Expired => "the token has expired: get a new one",
            TokenFault::NotYetValid => "the token is not valid yet: check the clocks",
            TokenFault::Malformed
            | TokenFault::Signature
            | TokenFault::Algorithm
            | TokenFault::Issuer
            | TokenFault::Audience
            | TokenFault::Claims => {
                "the token is not valid here: get one from this server's operator"
            }
        };
        let failure = Failure::new(ErrorCode::InvalidToken, why);
        let failure = Failure { reason: Some(fault), ..failure };
        let stays = self.claims.is_some();
        let close = (!stays).then(|| (CloseCode::InvalidToken, "no valid token".into()));
        let delay = self.gate.admission().refused_token(self.address, token, fault, now);
        self.refuse(Refusal { message, failure, close }, delay, now)
    }

    fn refuse(&mut self, refusal: Refusal, delay: Duration, now: Instant) -> Step {
        if delay.is_zero() {
            return self.answer(refusal);
        }
        self.held = Some(refusal);
        Step::Held { until: now + delay }
    }

    /// Goes on with what was held.
    pub(super) fn release(&mut self) -> Step {
        self.held.take().map_or(Step::Answered, |refusal| self.answer(refusal))
    }

    fn answer(&self, refusal: Refusal) -> Step {
        let Refusal { message, failure, close } = refusal;
        self.fail(&message, failure);
        close.map_or(Step::Answered, |(code, reason)| Step::Close(code, reason))
    }
}
