//! What a request brings, read into types: path, query and body each by the schema of their type, so
//! that what is checked is what the OpenAPI document says.

use std::marker::PhantomData;
use std::sync::Arc;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use warp::http::HeaderMap;

use super::body::Memory;
use super::check;
use super::principal::Principal;
use super::problem::{Faults, FieldError, Kind, Problem};
use super::request_id::RequestId;
use crate::object::Object;
use crate::orchestrator::presence::Presence;

/// A request, read.
pub(super) struct Input<P = Nothing, Q = Nothing, B = Nothing> {
    pub(super) id: RequestId,
    pub(super) principal: Principal,
    pub(super) headers: HeaderMap,
    /// Whether whoever asks is still there.
    pub(super) presence: Arc<Presence>,
    pub(super) path: P,
    pub(super) query: Q,
    pub(super) body: B,
    /// The right to the body's memory. Whoever is done with the body and waits drops it.
    pub(super) memory: Memory,
}

/// A part of a request that must be empty.
#[derive(Debug, Default, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// A query that nobody looks at: some SDKs add an API version.
#[derive(Debug, Default, Clone, Copy, Deserialize, JsonSchema)]
pub(super) struct Ignored {}

/// The schema by which requests are read into `T`, without references.
pub(super) fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().for_deserialize();
    let settings = settings.with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    settings
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

/// Reads JSON into `T`, or tells every error with its place.
pub(super) struct Reader<T> {
    pub(super) schema: Value,
    into: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned + JsonSchema> Reader<T> {
    pub(super) fn new() -> Self {
        Self {
            schema: schema_of::<T>(),
            into: PhantomData,
        }
    }

    /// `at` is the place of the JSON in what was sent: empty for the whole.
    pub(super) fn read(&self, json: &RawValue, at: &str) -> Result<T, Faults> {
        let mut errors = Faults::default();
        check::check(&self.schema, json, at, &mut errors);
        self.typed(json, at, errors)
    }

    /// The same of an object whose fields were read already.
    pub(super) fn read_object(
        &self,
        json: &RawValue,
        fields: &Object<'_>,
        at: &str,
    ) -> Result<T, Faults> {
        let mut errors = Faults::default();
        check::check_fields(&self.schema, fields, at, &mut errors);
        self.typed(json, at, errors)
    }

    fn typed(&self, json: &RawValue, at: &str, errors: Faults) -> Result<T, Faults> {
        if !errors.is_none() {
            return Err(errors);
        }
        // What no schema says.
        let mut deserializer = serde_json::Deserializer::from_str(json.get());
        serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            let place = match (at, error.path().to_string().as_str()) {
                ("", ".") => "the body".to_owned(),
                (at, ".") => at.to_owned(),
                ("", path) => path.to_owned(),
                (at, path) => format!("{at}.{path}"),
            };
            vec![FieldError::new(place, error.into_inner().to_string())].into()
        })
    }

    /// Of parameters, as JSON. An error in a list is an error of its parameter.
    pub(super) fn read_parameters(&self, json: &str, kind: Kind) -> Result<T, Problem> {
        let raw: &RawValue =
            serde_json::from_str(json).map_err(|error| Problem::new(kind, error.to_string()))?;
        self.read(raw, "").map_err(|mut errors| {
            for error in &mut errors.first {
                let end = error.field.find('[').unwrap_or(error.field.len());
                error.field.truncate(end);
            }
            Problem::of_fields(kind, errors)
        })
    }
}

/// Whether there has to be a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// There must be none.
    None,
    /// It may be missing.
    Optional,
    /// It must be there.
    Required,
}

/// What a body is read into.
pub(super) trait Payload: Send + Sized + 'static {
    const NEED: Need;
    /// What reads it: made once.
    type Reader: Send + Sync;

    fn reader() -> Self::Reader;
    /// The schema, for the document.
    fn schema() -> Value;
    /// Whether it is an object whatever it says, so that what begins as anything else is refused from its first bytes.
    fn is_object() -> bool {
        let schema = Self::schema();
        schema.get("type").and_then(Value::as_str) == Some("object")
    }
    /// `None`: there is no body.
    fn read(reader: &Self::Reader, body: Option<&RawValue>) -> Result<Self, Problem>;
}

impl Payload for Nothing {
    const NEED: Need = Need::None;
    type Reader = ();

    fn reader() {}

    fn schema() -> Value {
        Value::Null
    }

    fn read((): &(), _: Option<&RawValue>) -> Result<Self, Problem> {
        Ok(Self {})
    }
}

/// A body that must be there.
pub(super) struct Given<T>(pub(super) T);

impl<T: DeserializeOwned + JsonSchema + Send + 'static> Payload for Given<T> {
    const NEED: Need = Need::Required;
    type Reader = Reader<T>;

    fn reader() -> Reader<T> {
        Reader::new()
    }

    fn schema() -> Value {
        schema_of::<T>()
    }

    fn read(reader: &Reader<T>, body: Option<&RawValue>) -> Result<Self, Problem> {
        let body = body.unwrap_or(RawValue::NULL);
        let read = reader.read(body, "");
        read.map(Self)
            .map_err(|errors| Problem::of_fields(Kind::InvalidField, errors))
    }
}

/// A body that may be missing; then it is as if it were `{}`.
pub(super) struct Optional<T>(pub(super) T);

impl<T: DeserializeOwned + JsonSchema + Default + Send + 'static> Payload for Optional<T> {
    const NEED: Need = Need::Optional;
    type Reader = Reader<T>;

    fn reader() -> Reader<T> {
        Reader::new()
    }

    fn schema() -> Value {
        schema_of::<T>()
    }

    fn read(reader: &Reader<T>, body: Option<&RawValue>) -> Result<Self, Problem> {
        match body {
            None => Ok(Self(T::default())),
            Some(body) => Given::read(reader, Some(body)).map(|Given(read)| Self(read)),
        }
    }
}
