//! `auth`: from a token to an authenticated connection, or to a refusal.
//!
//! A refusal that repeats is answered late (WebSocket API, section 6), and a token whose key is
//! being asked for when the key has come. Both are held, with all that the client sent behind them,
//! until the session's timing releases them. Nothing sleeps meanwhile: what the connection is owed
//! goes out, and its end is noticed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use valtronics_protocol::{
    close::CloseCode,
    error::{ErrorCode, TokenFault},
    request::Message,
    response::{AuthResponse, Failure, Response},
};

use super::requests::{Requests, Step};
use crate::{
    auth::{Claims, KEYS_WITHIN, Keys, Rejected, refused_sub},
    engine::Command,
    limits::Refused,
};

/// How often it is looked whether the key of a token has come.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What is answered later.
#[derive(Debug)]
pub(super) enum Held {
    /// A refusal that repeats.
    Refusal(Refusal),
    /// A token whose key is being asked for.
    Token {
        message: Message,
        token: String,
        /// Tells whether the keys have changed since.
        changes: watch::Receiver<Keys>,
        give_up_at: Instant,
    },
}

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
        let token = match token {
            Ok(token) => token,
            Err(fault) => return self.refuse_token(message, "", fault, now),
        };
        // Before the keys are looked at, so that no change is missed.
        let changes = self.gate.keys.changes();
        match self.gate.keys.verify_now(&token) {
            Ok(claims) => self.admit(message, claims, now),
            Err(Rejected::Fault(fault)) => self.refuse_token(message, &token, fault, now),
            Err(Rejected::UnknownKey(_)) => {
                let give_up_at = now + KEYS_WITHIN;
                self.hold(Held::Token { message, token, changes, give_up_at }, now + LOOK_EVERY)
            }
        }
    }

    /// Goes on with what was held.
    pub(super) fn release(&mut self, now: Instant) -> Step {
        match self.held.take().map(|held| *held) {
            None => Step::Answered,
            Some(Held::Refusal(refusal)) => self.answer(refusal),
            Some(Held::Token { message, token, changes, give_up_at }) => {
                if now < give_up_at && !changes.has_changed().unwrap_or(true) {
                    let held = Held::Token { message, token, changes, give_up_at };
                    return self.hold(held, now + LOOK_EVERY);
                }
                match self.gate.keys.verify_now(&token) {
                    Ok(claims) => self.admit(message, claims, now),
                    Err(rejected) => self.refuse_token(message, &token, rejected.fault(), now),
                }
            }
        }
    }

    fn hold(&mut self, held: Held, until: Instant) -> Step {
        self.held = Some(Box::new(held));
        Step::Held { until }
    }

    /// Lets a user in, or takes his new token.
    fn admit(&mut self, message: Message, claims: Claims, now: Instant) -> Step {
        if let Some(known) = &self.claims {
            if known.sub != claims.sub {
                let (sub, code) = (Some(&*claims.sub), ErrorCode::Forbidden);
                self.gate.monitor.refusals.auth(self.address, sub, code);
                let why = "the new token is another user's: open a new connection for it";
                self.fail(&message, Failure::new(ErrorCode::Forbidden, why));
                return Step::Answered;
            }
            let regrant = Command::Regrant { session: self.id, claims: claims.clone() };
            self.commands.push(regrant);
        } else {
            let entry = self.entry.as_mut();
            let admitted = entry.map(|entry| entry.authenticated(self.address, &claims.sub, now));
            if let Some(Err(refused)) = admitted {
                return self.refuse_user(message, refused, &claims.sub, now);
            }
            let (connection, user, jti) = (self.id.0, &*claims.sub, claims.jti.as_deref());
            tracing::info!(connection, user, jti, address = %self.address, "authenticated");
            self.commands.push(Command::Attach {
                session: self.id,
                outbox: Arc::clone(&self.outbox),
                claims: claims.clone(),
            });
            if let Some(subscribe) = self.endpoint.as_deref().cloned() {
                self.commands.push(Command::SubscribeEndpoint { session: self.id, subscribe });
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
        self.outbox.push(&Response::AuthResponse(response));
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
        let retry_after = refused.retry_after_seconds();
        let code = match refused {
            Refused::UserFull | Refused::Full => ErrorCode::ConnectionLimit,
            Refused::UserRate { .. } | Refused::Address { .. } => ErrorCode::RateLimited,
        };
        self.gate.monitor.refusals.auth(self.address, Some(user), code);
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
        let sub = refused_sub(token, fault);
        self.gate.monitor.refusals.auth(self.address, sub.as_deref(), fault);
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
        self.hold(Held::Refusal(refusal), now + delay)
    }

    fn answer(&self, refusal: Refusal) -> Step {
        let Refusal { message, failure, close } = refusal;
        self.fail(&message, failure);
        close.map_or(Step::Answered, |(code, reason)| Step::Close(code, reason))
    }
}
