//! `ductile api <path>`: one request to the gateway, its answer as it is.

use http_body_util::BodyExt;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use serde_json::{Map, Value, json};

use crate::args::{Api, Global};
use crate::client::{Asked, encode};
use crate::error::Error;
use crate::exit_code;
use crate::instance::connect;
use crate::plugin::{read_argument, read_field};
use crate::report::Report;

/// Sends the request and prints the body as it arrives; the exit code follows the status.
///
/// # Errors
/// The arguments make no request, nobody answers, or the status is no success.
pub(crate) async fn run(args: &Api, global: &Global, report: &mut Report) -> Result<(), Error> {
    let asked = request(args)?;
    let client = connect(global, report)?;
    if args.dry.dry_run {
        let body = asked.body.as_deref().unwrap_or_default();
        report.line(format!("would ask {} for {} {} {body}", client.target(), asked.method, asked.path));
        if report.is_json() {
            let body = asked.body.as_deref().map(|text| serde_json::from_str(text).unwrap_or_else(|_| json!(text)));
            let document = json!({"dry_run": true, "method": asked.method.as_str(), "path": asked.path, "body": body});
            report.document(&document);
        }
        return Ok(());
    }
    let mut response = client.fetch(&asked).await?;
    let status = response.status();
    report.detail(format!("{} {}: {status}", asked.method, asked.path));
    for (name, value) in response.headers() {
        report.detail(format!("  {name}: {}", String::from_utf8_lossy(value.as_bytes())));
    }
    let mut last = None;
    while let Some(frame) = response.body_mut().frame().await {
        let frame = frame.map_err(|e| client.broke_off(&e.to_string()))?;
        if let Some(bytes) = frame.data_ref() {
            last = bytes.last().copied().or(last);
            report.bytes(bytes);
        }
        if report.is_closed() {
            break;
        }
    }
    if last.is_some_and(|byte| byte != b'\n') {
        report.bytes(b"\n");
    }
    match status {
        status if status.is_success() => Ok(()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => told(status, exit_code::NOT_PERMITTED, report),
        status => told(status, exit_code::FAILED, report),
    }
}

/// The body has said why already; the status stands beside it on stderr.
fn told(status: StatusCode, code: i32, report: &Report) -> Result<(), Error> {
    report.note(format!("ductile: the gateway answered {status}"));
    Err(Error::Told { code })
}

/// What the arguments ask for: `-f` and `-b` make it a POST unless `-X` says otherwise.
fn request(args: &Api) -> Result<Asked, Error> {
    let has_body = args.body.is_some() || !args.fields.is_empty();
    let method = match &args.method {
        Some(word) => Method::from_bytes(word.to_ascii_uppercase().as_bytes())
            .map_err(|_| Error::Usage(format!("-X {word}: no method of HTTP")))?,
        None if has_body => Method::POST,
        None => Method::GET,
    };
    let mut path = if args.path.starts_with('/') { args.path.clone() } else { format!("/{}", args.path) };
    if path.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Error::Usage(format!("{path:?} is no path: encode what is special, such as a space by %20")));
    }
    let fields: Vec<(String, Value)> =
        args.fields.iter().map(|field| read_field(field, &Value::Null)).collect::<Result<_, _>>()?;
    let body = match &args.body {
        Some(body) => Some(with_fields(&read_argument(body, "the body")?, fields)?),
        None if fields.is_empty() => None,
        None if method == Method::GET => {
            for (i, (key, value)) in fields.iter().enumerate() {
                let sign = if i == 0 && !path.contains('?') { '?' } else { '&' };
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                path.push_str(&format!("{sign}{}={}", encode(key), encode(&value)));
            }
            None
        }
        None => Some(json!({"payload": fields.into_iter().collect::<Map<_, _>>()}).to_string()),
    };
    let mut headers = args.headers.iter().map(|text| header(text)).collect::<Result<Vec<_>, _>>()?;
    if body.is_some() && !headers.iter().any(|(name, _)| name == CONTENT_TYPE) {
        headers.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
    }
    Ok(Asked { method, path, headers, body })
}

/// Lays fields into the `payload` of a body; without fields the body goes as it is.
fn with_fields(body: &str, fields: Vec<(String, Value)>) -> Result<String, Error> {
    if fields.is_empty() {
        return Ok(body.to_owned());
    }
    let unfit = || Error::Usage("-f lays fields into the payload of -b, which must be a JSON object then".into());
    let Ok(Value::Object(mut whole)) = serde_json::from_str(body) else { return Err(unfit()) };
    let payload = whole.entry("payload").or_insert_with(|| json!({}));
    payload.as_object_mut().ok_or_else(unfit)?.extend(fields);
    Ok(Value::Object(whole).to_string())
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), Error> {
    let unfit = || Error::Usage(format!("-H {text:?}: write 'Name: value'"));
    let (name, value) = text.split_once(':').ok_or_else(unfit)?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| unfit())?;
    Ok((name, HeaderValue::from_str(value.trim()).map_err(|_| unfit())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(path: &str) -> Api {
        Api { path: path.into(), ..Api::default() }
    }

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|t| (*t).to_owned()).collect()
    }

    /// CLI-32: POST is implied by -f or -b; -f goes into the payload.
    #[test]
    fn fields_and_bodies_make_it_a_post() {
        let plain = request(&args("jobs")).expect("fine");
        assert_eq!((plain.method, &*plain.path, plain.body), (Method::GET, "/jobs", None));
        let fields = texts(&["message=hello", "n:=3"]);
        let asked = request(&Api { fields: fields.clone(), ..args("/plugin/echo/poll") }).expect("fine");
        assert_eq!(asked.method, Method::POST);
        assert_eq!(asked.body.as_deref(), Some(r#"{"payload":{"message":"hello","n":3}}"#));
        assert_eq!(asked.headers, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let body = Some(r#"{"dedupe_key":"k","payload":{"message":"old","kept":1}}"#.to_owned());
        let both = request(&Api { fields, body, ..args("/x") }).expect("fine");
        let both: Value = serde_json::from_str(&both.body.expect("a body")).expect("JSON");
        assert_eq!(both, json!({"dedupe_key": "k", "payload": {"message": "hello", "kept": 1, "n": 3}}));
        let empty = request(&Api { method: Some("post".into()), ..args("/system/reload") }).expect("fine");
        assert_eq!((empty.method, empty.body), (Method::POST, None));
    }

    #[test]
    fn fields_of_a_get_are_its_query() {
        let get =
            |path: &str| Api { method: Some("GET".into()), fields: texts(&["status=a b", "limit=2"]), ..args(path) };
        assert_eq!(request(&get("/jobs")).expect("fine").path, "/jobs?status=a%20b&limit=2");
        assert_eq!(request(&get("/jobs?plugin=x")).expect("fine").path, "/jobs?plugin=x&status=a%20b&limit=2");
    }

    #[test]
    fn what_can_not_be_sent_is_a_usage_error() {
        for bad in [
            Api { method: Some("no method".into()), ..args("/x") },
            args("/with space"),
            args("/with\nline"),
            Api { headers: texts(&["novalue"]), ..args("/x") },
            Api { headers: texts(&["bad name: x"]), ..args("/x") },
            Api { headers: texts(&["X: a\nb"]), ..args("/x") },
            Api { fields: texts(&["novalue"]), ..args("/x") },
            Api { fields: texts(&["a=b"]), body: Some("[]".into()), ..args("/x") },
            Api { fields: texts(&["a=b"]), body: Some(r#"{"payload":3}"#.into()), ..args("/x") },
        ] {
            assert_eq!(request(&bad).expect_err("no request").exit_code(), 2, "{bad:?}");
        }
    }
}
