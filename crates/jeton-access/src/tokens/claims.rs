//! What a verified token says, and whether it says so to us and now.

use std::time::Duration;

use jeton_core::Wall;
use serde_json::{Map, Value};

use super::shown;

/// The end of the year 9999 (RFC 3339 has no later one).
const LAST_SECOND: f64 = 253_402_300_799.0;

/// The claims of a token whose signature was verified.
#[derive(Debug)]
pub(crate) struct Claims(pub(crate) Map<String, Value>);

impl Claims {
    /// A claim that is a text and there.
    pub(crate) fn text(&self, name: &str) -> Result<&str, String> {
        match self.0.get(name) {
            Some(Value::String(text)) if !text.is_empty() => Ok(text),
            Some(_) => Err(format!("the token's {name} is not a text")),
            None => Err(format!("the token has no {name}")),
        }
    }

    /// The audience is exactly ours: whoever else a token is for could show it here.
    pub(crate) fn check_audience(&self, ours: &str) -> Result<(), String> {
        let wrong = |said: &str| format!("the token is for {said}, and not for {} alone", shown(ours));
        match self.0.get("aud") {
            Some(Value::String(one)) if one == ours => Ok(()),
            Some(Value::Array(all)) if matches!(&all[..], [Value::String(one)] if one == ours) => Ok(()),
            Some(Value::String(other)) => Err(wrong(&shown(other))),
            Some(Value::Array(all)) if all.len() > 1 => Err(wrong(&format!("{} audiences", all.len()))),
            Some(Value::Array(all)) if all.len() == 1 => {
                Err(wrong(&shown(all[0].as_str().unwrap_or_default())))
            }
            Some(_) => Err(wrong("no audience")),
            None => Err("the token has no aud".into()),
        }
    }

    /// Whether the token counts now, and when it ends. The leeway is for the issuer's clock.
    pub(crate) fn check_times(&self, now: Wall, leeway: Duration) -> Result<Wall, String> {
        let ends = self.date("exp")?.ok_or("the token has no exp")? + leeway;
        if ends <= now {
            let ago = now.saturating_since(ends) + leeway;
            return Err(format!("the token expired {} s ago", ago.as_secs()));
        }
        for (name, what) in
            [("nbf", "is not valid before"), ("iat", "says that it was issued in the future,")]
        {
            if let Some(at) = self.date(name)?.filter(|at| *at > now + leeway) {
                let ahead = at.saturating_since(now).as_secs();
                return Err(format!("the token {what} {ahead} s from now; are both clocks right?"));
            }
        }
        Ok(ends)
    }

    /// A NumericDate (RFC 7519 section 2). One that is there and is none is an error, never as if it were not there.
    fn date(&self, name: &str) -> Result<Option<Wall>, String> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        let seconds = value.as_f64().filter(|s| (0.0..=LAST_SECOND).contains(s));
        let seconds =
            seconds.ok_or_else(|| format!("the token's {name} is not a time in seconds since 1970"))?;
        Ok(Some(Wall::from_millis((seconds * 1_000.0).floor() as i64)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: Wall = Wall::from_secs(1_767_225_600);
    const LEEWAY: Duration = Duration::from_secs(30);

    fn claims(value: Value) -> Claims {
        Claims(value.as_object().unwrap().clone())
    }

    fn at(seconds: i64) -> i64 {
        NOW.as_secs() + seconds
    }

    #[test]
    fn a_token_counts_from_its_nbf_to_its_exp_with_the_leeway_at_both_ends() {
        let ends = |value| claims(value).check_times(NOW, LEEWAY);
        assert_eq!(ends(json!({"exp": at(60)})), Ok(NOW + Duration::from_secs(90)));
        assert_eq!(ends(json!({"exp": at(-29)})), Ok(NOW + Duration::from_secs(1)));
        assert!(ends(json!({"exp": at(-30)})).unwrap_err().contains("expired 30 s ago"));
        assert!(ends(json!({"exp": at(60), "nbf": at(30)})).is_ok());
        assert!(ends(json!({"exp": at(60), "nbf": at(31)})).unwrap_err().contains("31 s from now"));
        assert!(ends(json!({"exp": at(60), "iat": at(31)})).unwrap_err().contains("issued in the future"));
        let fraction = NOW.as_secs() as f64 + 0.25;
        assert_eq!(ends(json!({ "exp": fraction })), Ok(NOW + Duration::from_millis(30_250)));
    }

    #[test]
    fn a_time_that_is_none_is_an_error_and_not_as_if_it_were_not_there() {
        for name in ["exp", "nbf", "iat"] {
            for bad in [
                json!("1767225600"),
                json!(null),
                json!(-1),
                json!(1e300),
                json!(u64::MAX),
                json!([]),
                json!(true),
            ] {
                let mut token = claims(json!({"exp": at(60)}));
                token.0.insert(name.into(), bad.clone());
                assert!(token.check_times(NOW, LEEWAY).unwrap_err().contains(name), "{name} {bad}");
            }
        }
        assert_eq!(claims(json!({})).check_times(NOW, LEEWAY), Err("the token has no exp".into()));
    }

    #[test]
    fn the_audience_is_exactly_ours() {
        let check = |value| claims(json!({ "aud": value })).check_audience("jeton");
        assert_eq!((check(json!("jeton")), check(json!(["jeton"]))), (Ok(()), Ok(())));
        for bad in [
            json!("Jeton"),
            json!("jeton "),
            json!(["jeton", "vault"]),
            json!(["vault"]),
            json!([]),
            json!(null),
            json!({"jeton": 1}),
            json!([["jeton"]]),
        ] {
            assert!(check(bad.clone()).unwrap_err().contains("not for \"jeton\" alone"), "{bad}");
        }
        assert!(claims(json!({})).check_audience("jeton").is_err());
    }
}
