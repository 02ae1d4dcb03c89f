//! What a token's claims have to say before anybody believes them (RFC 7519, section 4).

use serde_json::{Map, Value as Json};
use valtronics_protocol::{error::TokenFault, reading::is_name, time::UnixMillis};

use super::{
    Claims, Keys, LEEWAY,
    grant::{Scopes, read_grant},
};

impl Keys {
    /// Checks the claims of a token that one of the keys has signed.
    pub(super) fn check(
        &self,
        claims: &Map<String, Json>,
        now: UnixMillis,
    ) -> Result<Claims, TokenFault> {
        let expires_at = moment(claims, "exp")?.ok_or(TokenFault::Claims)?;
        if expires_at.plus(LEEWAY) <= now {
            return Err(TokenFault::Expired);
        }
        if moment(claims, "nbf")?.is_some_and(|not_before| not_before > now.plus(LEEWAY)) {
            return Err(TokenFault::NotYetValid);
        }
        if let Some(issuer) = &self.issuer
            && text(claims, "iss")? != Some(issuer)
        {
            return Err(TokenFault::Issuer);
        }
        if let Some(audience) = &self.audience
            && !is_meant_for(claims.get("aud"), audience)?
        {
            return Err(TokenFault::Audience);
        }
        let sub = text(claims, "sub")?.filter(|sub| is_name(sub)).ok_or(TokenFault::Claims)?;
        Ok(Claims {
            sub: sub.into(),
            scopes: text(claims, "scope")?.map_or_else(Scopes::reading, Scopes::parse),
            devices: read_grant(claims.get("devices"))?,
            expires_at,
            jti: text(claims, "jti")?.map(str::to_owned),
        })
    }
}

fn text<'a>(claims: &'a Map<String, Json>, name: &str) -> Result<Option<&'a str>, TokenFault> {
    let given = claims.get(name);
    given.map(|claim| claim.as_str().ok_or(TokenFault::Claims)).transpose()
}

/// Reads a moment: seconds since 1970, with a fraction or without.
fn moment(claims: &Map<String, Json>, name: &str) -> Result<Option<UnixMillis>, TokenFault> {
    let Some(given) = claims.get(name) else { return Ok(None) };
    // What RFC 3339 can write ends with the year 9999.
    let most = UnixMillis::MAX.0 as f64 / 1000.0;
    let seconds = given.as_f64().filter(|seconds| (0.0..=most).contains(seconds));
    let seconds = seconds.ok_or(TokenFault::Claims)?;
    Ok(Some(UnixMillis((seconds * 1000.0) as i64)))
}

/// Tells whether `aud`, one text or several, names the audience.
fn is_meant_for(aud: Option<&Json>, audience: &str) -> Result<bool, TokenFault> {
    match aud {
        None => Ok(false),
        Some(Json::String(one)) => Ok(one == audience),
        Some(Json::Array(many)) if many.iter().all(Json::is_string) => {
            Ok(many.iter().any(|one| one.as_str() == Some(audience)))
        }
        Some(_) => Err(TokenFault::Claims),
    }
}
