//! What a step claims for all later hops, and how claims accrete: paths may be added, never changed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::path::{Fault, Path, Roots, Scope};
use crate::raw::{Kind, Raw, quoted, raw_value};
use crate::same::same;

/// Bytes that the accumulated baggage may have.
pub const MAX_BYTES: usize = 1 << 20;
/// Brackets around the innermost value of the accumulated baggage; readers of JSON give up at 128.
pub const MAX_NESTING: usize = 96;
/// Claims that one step may make.
pub const MAX_CLAIMS: usize = 256;
/// Segments of a durable path.
pub const MAX_SEGMENTS: usize = 16;
/// Bytes of a durable path.
pub const MAX_KEY_BYTES: usize = 256;

/// The `baggage` of a step, checked when it was loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Baggage {
    claims: Vec<Claim>,
}

/// One durable path and where its value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The durable path, such as `web.url`.
    pub key: String,
    /// The source.
    pub from: Path,
    /// The source must be an object: `from` and `namespace`.
    pub is_bulk: bool,
}

/// Why claims could not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaggageFault {
    /// A source path leads nowhere.
    Missing {
        /// The durable path that claims it.
        key: String,
        /// The source path.
        path: String,
    },
    /// A bulk import from something that has no names.
    NotAnObject {
        /// The source path.
        path: String,
        /// What it is.
        kind: Kind,
    },
    /// A durable path has another value already.
    Immutable {
        /// The durable path.
        path: String,
    },
    /// A claimed value is nested deeper than [`MAX_NESTING`].
    TooDeep {
        /// The durable path that claims it.
        key: String,
    },
    /// All of the baggage is larger than [`MAX_BYTES`].
    TooLarge {
        /// Its size.
        bytes_actual: usize,
        /// The limit.
        bytes_limit: usize,
    },
}

impl fmt::Display for BaggageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { key, path } => write!(f, "baggage path {key:?}: path {path:?} is missing"),
            Self::NotAnObject { path, kind } => {
                write!(f, "baggage from {path:?} needs an object, it is {}", kind.with_article())
            }
            Self::Immutable { path } => write!(f, "baggage path {path:?} is immutable"),
            Self::TooDeep { key } => write!(f, "baggage path {key:?}: nested deeper than {MAX_NESTING}"),
            Self::TooLarge { bytes_actual, bytes_limit } => {
                write!(f, "baggage of {bytes_actual} bytes is larger than the limit of {bytes_limit} bytes")
            }
        }
    }
}

impl std::error::Error for BaggageFault {}

impl Baggage {
    /// Reads `{<durable path>: <source>, ...}` or `{from: <source>, namespace: <durable path>}`.
    ///
    /// # Errors
    /// Every fault, in the order of the keys.
    pub fn parse(value: &Value) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let Some(map) = value.as_object() else {
            let message =
                format!("baggage is a map of durable paths to sources, not {}", Kind::of(value).with_article());
            return Err(vec![Fault::new("", message)]);
        };
        let claims = if map.contains_key("from") { bulk(map, &mut faults) } else { single(map, &mut faults) };
        if faults.is_empty() { Ok(Self { claims }) } else { Err(faults) }
    }

    /// The claims in the order of their keys.
    #[must_use]
    pub fn claims(&self) -> &[Claim] {
        &self.claims
    }

    /// True when nothing is claimed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    /// The inherited baggage with the claimed values added; without claims the inherited one as it was. All claims read
    /// the same scope. Values are copied as they were written.
    ///
    /// # Errors
    /// The first claim that cannot be made, or a result that is too large.
    pub fn claim(&self, inherited: Option<&RawValue>, scope: &Scope<'_>) -> Result<Box<RawValue>, BaggageFault> {
        let inherited = inherited.map_or(Raw::EMPTY, Raw::from);
        if self.claims.is_empty() {
            return Ok(inherited.to_raw_value());
        }
        let mut baggage = Tree::Closed(inherited);
        for claim in &self.claims {
            let Some(value) = claim.from.find(scope) else {
                return Err(BaggageFault::Missing { key: claim.key.clone(), path: claim.from.to_string() });
            };
            if claim.is_bulk && value.kind() != Kind::Object {
                return Err(BaggageFault::NotAnObject { path: claim.from.to_string(), kind: value.kind() });
            }
            let segments: Vec<&str> = claim.key.split('.').collect();
            if segments.len() + value.nesting() > MAX_NESTING {
                return Err(BaggageFault::TooDeep { key: claim.key.clone() });
            }
            let mut place = Vec::with_capacity(segments.len());
            baggage.add(&segments, value, &mut place)?;
        }
        let mut json = String::with_capacity(inherited.get().len());
        baggage.write(&mut json);
        if json.len() > MAX_BYTES {
            return Err(BaggageFault::TooLarge { bytes_actual: json.len(), bytes_limit: MAX_BYTES });
        }
        Ok(raw_value(json))
    }
}

/// Baggage that is being added to; what no claim touches stays closed and is copied as it was written.
enum Tree<'a> {
    Closed(Raw<'a>),
    Open(Vec<(Cow<'a, str>, Tree<'a>)>, BTreeMap<Cow<'a, str>, usize>),
}

impl<'a> Tree<'a> {
    /// Puts a value where `segments` lead from here; `place` is how one came here, for the message.
    fn add(&mut self, segments: &[&'a str], value: Raw<'a>, place: &mut Vec<Cow<'a, str>>) -> Result<(), BaggageFault> {
        let Some((first, rest)) = segments.split_first() else { return self.merge(value, place) };
        let child = self.child(Cow::Borrowed(first), place)?;
        place.push(Cow::Borrowed(first));
        match child {
            Some(child) => child.add(rest, value, place)?,
            None => self.insert(Cow::Borrowed(first), Tree::chain(rest, value)),
        }
        place.pop();
        Ok(())
    }

    /// Adds what is new in `value`. Objects are merged, everything else must be the same as before.
    fn merge(&mut self, value: Raw<'a>, place: &mut Vec<Cow<'a, str>>) -> Result<(), BaggageFault> {
        let is_object = match self {
            Self::Closed(old) if same(*old, value) => return Ok(()),
            Self::Closed(old) => old.kind() == Kind::Object,
            Self::Open(..) => true,
        };
        if !is_object || value.kind() != Kind::Object {
            return Err(immutable(place));
        }
        for (key, value) in value.unique_members() {
            let child = self.child(key.clone(), place)?;
            place.push(key.clone());
            match child {
                Some(child) => child.merge(value, place)?,
                None => self.insert(key, Tree::Closed(value)),
            }
            place.pop();
        }
        Ok(())
    }

    /// The member of that name; what is no object has none and cannot get one.
    fn child(&mut self, key: Cow<'a, str>, place: &[Cow<'a, str>]) -> Result<Option<&mut Tree<'a>>, BaggageFault> {
        if let Self::Closed(value) = self {
            if value.kind() != Kind::Object {
                return Err(immutable(place));
            }
            let members = value.unique_members();
            let places = members.iter().enumerate().map(|(at, (key, _))| (key.clone(), at)).collect();
            *self = Self::Open(members.into_iter().map(|(key, value)| (key, Self::Closed(value))).collect(), places);
        }
        let Self::Open(members, places) = self else { return Ok(None) };
        Ok(places.get(&key).and_then(|at| members.get_mut(*at)).map(|(_, child)| child))
    }

    fn insert(&mut self, key: Cow<'a, str>, child: Tree<'a>) {
        if let Self::Open(members, places) = self {
            places.insert(key.clone(), members.len());
            members.push((key, child));
        }
    }

    /// The value inside one object per segment.
    fn chain(segments: &[&'a str], value: Raw<'a>) -> Self {
        segments.iter().rev().fold(Self::Closed(value), |inside, segment| {
            let key = Cow::Borrowed(*segment);
            Self::Open(vec![(key.clone(), inside)], BTreeMap::from([(key, 0)]))
        })
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Closed(value) => out.push_str(value.get()),
            Self::Open(members, _) => {
                out.push('{');
                for (at, (key, child)) in members.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    out.push_str(&quoted(key));
                    out.push(':');
                    child.write(out);
                }
                out.push('}');
            }
        }
    }
}

fn immutable(place: &[Cow<'_, str>]) -> BaggageFault {
    let path = if place.is_empty() { "context".to_owned() } else { place.join(".") };
    BaggageFault::Immutable { path }
}

fn bulk(map: &Map<String, Value>, faults: &mut Vec<Fault>) -> Vec<Claim> {
    for key in map.keys().filter(|key| !matches!(key.as_str(), "from" | "namespace")) {
        let hint = "beside `from` only `namespace` may stand; claim single values in another step".to_owned();
        faults.push(Fault::new(key, "cannot stand beside a bulk import").hint(Some(hint)));
    }
    let from = map.get("from").and_then(|value| source(value, "from", faults));
    let namespace = match map.get("namespace") {
        Some(Value::String(namespace)) => match check_key(namespace) {
            Ok(()) => Some(namespace.clone()),
            Err(fault) => {
                faults.push(Fault { at: "namespace".to_owned(), ..fault });
                None
            }
        },
        Some(other) => {
            let is = Kind::of(other).with_article();
            faults.push(Fault::new("namespace", format!("needs a durable path, not {is}")));
            None
        }
        None => {
            let hint = "add `namespace: <name>`: names are never put at the root of the baggage".to_owned();
            faults.push(Fault::new("namespace", "is missing: `from` needs one").hint(Some(hint)));
            None
        }
    };
    from.zip(namespace).map(|(from, key)| Claim { key, from, is_bulk: true }).into_iter().collect()
}

fn single(map: &Map<String, Value>, faults: &mut Vec<Fault>) -> Vec<Claim> {
    if map.len() > MAX_CLAIMS {
        faults.push(Fault::new("", format!("{} claims; at most {MAX_CLAIMS} are allowed", map.len())));
        return Vec::new();
    }
    let mut claims = Vec::with_capacity(map.len());
    for (key, value) in map {
        let checked = check_key(key).map_err(|fault| faults.push(fault));
        let from = source(value, key, faults);
        if let (Ok(()), Some(from)) = (checked, from) {
            claims.push(Claim { key: key.clone(), from, is_bulk: false });
        }
    }
    for inner in &claims {
        for outer in &claims {
            if inner.key.strip_prefix(outer.key.as_str()).is_some_and(|rest| rest.starts_with('.')) {
                let message = format!("lies inside {:?}, which the same step claims", outer.key);
                faults.push(Fault::new(&inner.key, message));
            }
        }
    }
    claims
}

/// Where a claim's value comes from.
fn source(value: &Value, at: &str, faults: &mut Vec<Fault>) -> Option<Path> {
    let Value::String(text) = value else {
        let message = format!("needs a source such as payload.url, not {}", Kind::of(value).with_article());
        let hint = value.is_object().then(|| format!("write the whole durable path as one key, such as {at}.url"));
        faults.push(Fault::new(at, message).hint(hint));
        return None;
    };
    match Path::parse(text, Roots::Data) {
        Ok(path) => Some(path),
        Err(invalid) => {
            let inside = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
            let hint = inside.map(|path| format!("write {path} without braces")).or(invalid.hint);
            faults.push(Fault::new(at, invalid.message).hint(hint));
            None
        }
    }
}

/// The grammar of durable paths, and the names that the gateway keeps for itself.
fn check_key(key: &str) -> Result<(), Fault> {
    let refuse = |message: String| Err(Fault::new(key, message));
    if key.len() > MAX_KEY_BYTES {
        return Err(Fault::new(
            "",
            format!("a durable path of {} bytes; at most {MAX_KEY_BYTES} are allowed", key.len()),
        ));
    }
    let is_segment = |segment: &str| {
        matches!(segment.bytes().next(), Some(b) if b.is_ascii_alphabetic() || b == b'_')
            && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    if !key.split('.').all(is_segment) {
        return refuse(format!(
            "{key:?} is no durable path: segments are letters, digits and _, not beginning with a digit, with a dot between"
        ));
    }
    if key.split('.').count() > MAX_SEGMENTS {
        return refuse(format!("more than {MAX_SEGMENTS} segments"));
    }
    let first = key.split('.').next().unwrap_or_default();
    if first.starts_with("origin_") || first.starts_with("ductile") {
        return refuse(format!("{key:?} is set by the gateway and cannot be claimed"));
    }
    Ok(())
}
