use std::collections::BTreeMap;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::Empty;
use serde::Deserialize;
use serde_json::{Map, Value};

use buttress::BoxError;
use buttress::layers::retry::{Decision, Rules};
use buttress::transport::http::{HttpRules, ReplayBody};

use crate::report::{Miss, same};
use crate::vector::{present, read};

/// An answer, or an error, and what is to be done about it. The format leaves open what its parts are called and which
/// lies in which.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    method: Option<String>,
    #[serde(alias = "status_code", alias = "code")]
    status: Option<u16>,
    error: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, Value>,
    /// The header: a text, or a number of seconds.
    #[serde(default, alias = "retry_after_s", alias = "Retry-After")]
    retry_after: Option<Value>,
    /// Further statuses that are tried again.
    #[serde(default)]
    retry_statuses: Vec<u16>,
    retry: Option<Value>,
    /// Null where the backoff says it.
    #[serde(
        default,
        deserialize_with = "present",
        alias = "retry_after_ms",
        alias = "wait_ms"
    )]
    delay_ms: Option<Option<f64>>,
    #[serde(rename = "name")]
    _name: Option<String>,
}

pub(super) fn replay(profile: &str, mut body: Value) -> Result<(), Miss> {
    let fields = body.as_object_mut();
    let cases = match fields.and_then(|fields| fields.remove("cases")) {
        Some(Value::Array(cases)) => cases,
        _ => vec![Value::Object(Map::new())],
    };
    for (i, case) in cases.into_iter().enumerate() {
        let mut fields = Map::new();
        // What all cases have, then what is this one's.
        for part in [body.clone(), case] {
            gather(part, &mut fields);
        }
        fields.remove("kind");
        let checked = read(Value::Object(fields)).and_then(|case| check(profile, &case));
        checked.map_err(|miss| miss.at(format_args!("case {i}")))?;
    }
    Ok(())
}

/// Takes the fields out of the parts that they lie in.
fn gather(part: Value, fields: &mut Map<String, Value>) {
    let Value::Object(part) = part else { return };
    for (name, value) in part {
        match value {
            Value::Object(_) if name != "headers" => gather(value, fields),
            value => drop(fields.insert(name, value)),
        }
    }
}

fn check(profile: &str, case: &Case) -> Result<(), Miss> {
    let (again, after) = match decide(profile, case)? {
        Decision::Done => (false, None),
        Decision::Retry { after } => (true, after),
        Decision::RetryIn(wait) => (true, Some(wait)),
    };
    let wanted = case.retry.as_ref().map(|it| *it == true || it == "yes");
    same("whether it is tried again", again, wanted.unwrap_or(again))?;
    let Some(wanted) = case.delay_ms.filter(|_| again) else {
        return Ok(());
    };
    let wanted = wanted.map(|millis| Duration::from_secs_f64(millis / 1e3));
    if let (None, Some(_), Some(status)) = (wanted, after, case.status) {
        if !matches!(status, 429 | 503) {
            let why = format!("Retry-After of a {status} is heeded");
            return Err(Miss::Unsupported(why));
        }
    }
    same("the wait that was asked for", after, wanted)
}

fn decide(profile: &str, case: &Case) -> Result<Decision, Miss> {
    let method = case.method.as_deref().unwrap_or("GET");
    let method = Method::from_bytes(method.as_bytes());
    let mut request = Request::builder().method(method.unwrap());
    if PROFILES_OF_ANY_METHOD.contains(&profile) {
        request = request.header("idempotency-key", "1");
    }
    let mut answer = Response::builder();
    let mut headers: Vec<_> = case.headers.iter().map(|(k, v)| (k.as_str(), v)).collect();
    headers.extend(
        case.retry_after
            .as_ref()
            .map(|after| ("retry-after", after)),
    );
    for (name, value) in headers {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        match name.to_ascii_lowercase().as_str() {
            "idempotency-key" => request = request.header(name, value),
            _ => answer = answer.header(name, value),
        }
    }
    let body = ReplayBody::new(Empty::<bytes::Bytes>::new(), 0);
    let request = request.body(body).unwrap();
    let rules = rules(profile, &case.retry_statuses);
    let result = match (case.status, case.error.as_deref()) {
        (Some(status), _) => Ok(answer.status(status).body(()).unwrap()),
        (None, Some("connect" | "timeout" | "reset" | "eof" | "e" | "network" | "io")) => {
            Err(BoxError::from("failed"))
        }
        (None, error) => return Err(Miss::Unsupported(format!("the error {error:?}"))),
    };
    Ok(rules.decide(&request, result.as_ref()))
}

/// Ours, and the statuses that are failures in the profile besides.
fn rules(profile: &str, further: &[u16]) -> HttpRules {
    let statuses: Vec<u16> = match profile {
        "failsafe-go" => (500..600).filter(|status| *status != 501).collect(),
        "polly-v7" | "polly-v8" => (500..600).chain([408]).collect(),
        _ => Vec::new(),
    };
    let statuses = statuses.iter().chain(further);
    statuses.fold(HttpRules::new(), |rules, status| {
        rules.retry_status(StatusCode::from_u16(*status).unwrap())
    })
}

/// Who tries again whatever the method is.
const PROFILES_OF_ANY_METHOD: [&str; 3] = ["failsafe-go", "polly-v7", "polly-v8"];
