//! What an OPA elsewhere is sent by HTTP, and what it answers.
//!
//! Two forms. A URL whose path begins with `/v1/data` is OPA's data API (OPA documentation, "REST API", "Data API"):
//! `{"input": …}`, answered by `{"result": …}`. Any other URL is asked as Waxosuit did (fact sheet of Waxosuit, "OPA"):
//! the body is `{"token": "…"}` and nothing else, the answer `{"allow": …, "cause": […]}`; OPA's default decision,
//! `system.main`, serves that.

use super::{Decision, PolicyError, Question};
use serde::Serialize;
use serde_json::Value;

/// Bytes of an answer that are read.
pub const MAX_ANSWER: usize = 1 << 20;

/// How a policy server wants to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The token alone.
    Token,
    /// OPA's data API.
    Data,
}

#[derive(Serialize)]
struct Input<'a, T> {
    input: &'a T,
}

#[derive(Serialize)]
struct TokenAlone<'a> {
    token: &'a str,
}

// === impl Form ===

impl Form {
    /// By the path of the server's URL.
    pub fn of(path: &str) -> Form {
        let is_data =
            path.strip_prefix("/v1/data").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if is_data { Form::Data } else { Form::Token }
    }

    /// The body of the request.
    pub fn body(self, question: &Question) -> Result<Vec<u8>, PolicyError> {
        let body = match self {
            Form::Token => serde_json::to_vec(&TokenAlone { token: &question.token }),
            Form::Data => serde_json::to_vec(&Input { input: question }),
        };
        body.map_err(|error| PolicyError::Failed(error.to_string()))
    }

    /// What an answer with this status and this body says.
    pub fn answer(self, status: u16, body: &[u8]) -> Result<Decision, PolicyError> {
        if status != 200 {
            return Err(PolicyError::Garbage(format!("its status is {status}")));
        }
        let answer: Value =
            serde_json::from_slice(body).map_err(|error| PolicyError::Garbage(error.to_string()))?;
        match self {
            Form::Token => Decision::of(&answer),
            Form::Data => Decision::of(answer.get("result").unwrap_or(&Value::Null)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_told_by_the_path() {
        for (path, form) in [
            ("/", Form::Token),
            ("", Form::Token),
            ("/v1/data/dhow", Form::Data),
            ("/v1/data", Form::Data),
            ("/v1/database", Form::Token),
            ("/policy/v1/data", Form::Token),
        ] {
            assert_eq!(Form::of(path), form, "{path}");
        }
    }

    #[test]
    fn only_a_clear_yes_is_one() {
        for (form, status, body, allow) in [
            (Form::Token, 200, r#"{"allow": true}"#, true),
            (Form::Token, 200, r#"{"allow": true, "cause": []}"#, true),
            (Form::Token, 200, "true", true),
            (Form::Data, 200, r#"{"result": {"allow": true}, "decision_id": "x"}"#, true),
            (Form::Data, 200, r#"{"result": true}"#, true),
            (Form::Token, 201, r#"{"allow": true}"#, false),
            (Form::Token, 500, r#"{"allow": true}"#, false),
            (Form::Token, 200, r#"{"allow": "true"}"#, false),
            (Form::Token, 200, r#"{"allow": 1}"#, false),
            (Form::Token, 200, r#"{"result": {"allow": true}}"#, false),
            (Form::Token, 200, r#"{"allow": true, "cause": {}}"#, false),
            (Form::Token, 200, r#"[true]"#, false),
            (Form::Token, 200, "", false),
            (Form::Token, 200, "<html>", false),
            (Form::Data, 200, r#"{"allow": true}"#, false),
            (Form::Data, 200, "{}", false),
            (Form::Data, 200, r#"{"result": false}"#, false),
        ] {
            let answer = form.answer(status, body.as_bytes());
            assert_eq!(answer.is_ok_and(|decision| decision.allow), allow, "{form:?} {status} {body}");
        }
        let decision =
            Form::Token.answer(200, br#"{"allow": false, "cause": ["expired", "unknown"]}"#).unwrap();
        assert_eq!(decision.reason(), "expired; unknown");
        let many = serde_json::json!({"allow": false, "cause": vec!["x".repeat(10_000); 1000]}).to_string();
        assert!(Form::Token.answer(200, many.as_bytes()).unwrap().reason().len() < 10_000);
    }
}
