//! What an endpoint is: a row of the table in [`super::endpoints`]. The router, the OpenAPI document and
//! the reference page are made of these rows and of nothing else.

use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use warp::http::{HeaderMap, Method};

use super::Api;
use super::answer::{Answer, JSON, Reply, Shapes};
use super::body::Body;
use super::input::{Ignored, Input, Need, Nothing, Payload, Reader, schema_of};
use super::paths::Paths;
use super::principal::{Access, Principal};
use super::problem::{Kind, Problem};
use super::request_id::RequestId;
use super::{limits, query};
use crate::orchestrator::presence::Presence;

/// A row of the table.
pub(super) struct Endpoint {
    pub(super) method: Method,
    /// With parameters in braces.
    pub(super) path: &'static str,
    pub(super) access: Access,
    /// In a few words.
    pub(super) summary: &'static str,
    /// What else there is to know.
    pub(super) about: &'static str,
    /// Under which heading it stands.
    pub(super) section: &'static str,
    /// A body that is taken, or the query of one that has none.
    pub(super) example: Option<Value>,
    pub(super) path_schema: Value,
    pub(super) query_schema: Value,
    pub(super) body_schema: Value,
    pub(super) need: Need,
    /// Of which type the body is.
    pub(super) media: &'static str,
    /// Headers that are read, with what they say.
    pub(super) headers: Vec<(&'static str, &'static str)>,
    pub(super) describe: fn(&mut Shapes<'_>),
    /// What can be wrong beside what the parts of the request bring with them.
    errors: Vec<Kind>,
    /// Whether it takes so much that operators don't need it while there is too much to do.
    is_heavy: bool,
    /// Whether it changes settings: what it says may hold secrets, so what it changed is put on record instead.
    pub(super) changes_settings: bool,
    handler: Handler,
}

type Handler =
    Box<dyn Fn(Arc<Api>, Incoming) -> BoxFuture<'static, Result<Reply, Problem>> + Send + Sync>;

/// A request as it came.
pub(super) struct Incoming {
    pub(super) id: RequestId,
    pub(super) principal: Principal,
    pub(super) headers: HeaderMap,
    pub(super) presence: Arc<Presence>,
    /// The parts of the path that stand for parameters.
    pub(super) captures: PathParameters,
    pub(super) query: String,
    pub(super) body: Body,
}

impl Endpoint {
    /// A row with its handler, whose types say what is read and answered.
    pub(super) fn new<P, Q, B, A, F, Fut>(
        method: Method,
        path: &'static str,
        access: Access,
        summary: &'static str,
        handler: F,
    ) -> Self
    where
        P: DeserializeOwned + JsonSchema + Send + 'static,
        Q: DeserializeOwned + JsonSchema + Send + 'static,
        B: Payload,
        A: Answer,
        F: Fn(Arc<Api>, Input<P, Q, B>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<A, Problem>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let paths = Arc::new(Reader::<P>::new());
        let queries = Arc::new(Reader::<Q>::new());
        let bodies = Arc::new(B::reader());
        let (path_schema, query_schema) = (paths.schema.clone(), queries.schema.clone());
        let reads_body = method != Method::GET;
        let is_object = B::is_object();
        Self {
            method,
            path,
            access,
            summary,
            about: "",
            section: "",
            example: None,
            path_schema,
            query_schema,
            body_schema: B::schema(),
            need: B::NEED,
            media: JSON,
            headers: Vec::new(),
            describe: A::describe,
            errors: Vec::new(),
            is_heavy: false,
            changes_settings: false,
            handler: Box::new(move |api, incoming| {
                let handler = Arc::clone(&handler);
                let (paths, queries) = (Arc::clone(&paths), Arc::clone(&queries));
                let bodies = Arc::clone(&bodies);
                Box::pin(async move {
                    let path = query::object(&incoming.captures, &paths.schema);
                    let path = paths.read_parameters(&path, Kind::InvalidId)?;
                    let query = match is_read(&queries.schema) {
                        true => query::to_json(&incoming.query, &queries.schema)
                            .map_err(|error| Problem::of_fields(Kind::InvalidQuery, vec![error]))?,
                        false => "{}".to_owned(),
                    };
                    let query = queries.read_parameters(&query, Kind::InvalidQuery)?;
                    let body = incoming.body;
                    let (body, memory) = match B::NEED {
                        Need::None if !reads_body => (B::read(&bodies, None)?, None),
                        need => {
                            let read = move |body: Option<&RawValue>| B::read(&bodies, body);
                            let body = match is_object {
                                true => body.of_an_object(),
                                false => body,
                            };
                            body.read(&incoming.headers, need, read).await?
                        }
                    };
                    let input = Input {
                        id: incoming.id,
                        principal: incoming.principal,
                        headers: incoming.headers,
                        presence: incoming.presence,
                        path,
                        query,
                        body,
                        memory,
                    };
                    handler(api, input).await.map(Answer::reply)
                })
            }),
        }
    }

    /// A row whose handler reads the body by itself, as it comes. Its path and its query say nothing.
    pub(super) fn taking<A, F, Fut>(
        path: &'static str,
        access: Access,
        summary: &'static str,
        (media, body_schema): (&'static str, Value),
        handler: F,
    ) -> Self
    where
        A: Answer,
        F: Fn(Arc<Api>, Principal, HeaderMap, Body) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<A, Problem>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        Self {
            method: Method::POST,
            path,
            access,
            summary,
            about: "",
            section: "",
            example: None,
            path_schema: schema_of::<Nothing>(),
            query_schema: schema_of::<Ignored>(),
            body_schema,
            need: Need::Required,
            media,
            headers: Vec::new(),
            describe: A::describe,
            errors: Vec::new(),
            is_heavy: false,
            changes_settings: false,
            handler: Box::new(move |api, incoming| {
                let handler = Arc::clone(&handler);
                Box::pin(async move {
                    let Incoming {
                        principal,
                        headers,
                        body,
                        ..
                    } = incoming;
                    let answered = handler(api, principal, headers, body).await;
                    answered.map(Answer::reply)
                })
            }),
        }
    }

    /// Under which heading it stands.
    pub(super) const fn under(mut self, section: &'static str) -> Self {
        self.section = section;
        self
    }

    /// What else there is to know.
    pub(super) const fn about(mut self, about: &'static str) -> Self {
        self.about = about;
        self
    }

    /// What can be wrong beside what the parts of the request bring with them.
    pub(super) fn errors(mut self, errors: &[Kind]) -> Self {
        self.errors.extend(errors);
        self
    }

    /// It is refused as work is when there is too much to do.
    pub(super) const fn heavy(mut self) -> Self {
        self.is_heavy = true;
        self
    }

    /// It changes settings.
    pub(super) const fn of_settings(mut self) -> Self {
        self.changes_settings = true;
        self
    }

    /// Whether it is open while there is too much to do.
    pub(super) fn is_for_operators(&self) -> bool {
        self.access != Access::Submit && !self.is_heavy
    }

    /// A header that is read.
    pub(super) fn header(mut self, name: &'static str, about: &'static str) -> Self {
        self.headers.push((name, about));
        self
    }

    /// A body that is taken.
    pub(super) fn example(mut self, example: Value) -> Self {
        self.example = Some(example);
        self
    }

    /// Answers a request that is for this endpoint.
    pub(super) async fn answer(
        &self,
        api: Arc<Api>,
        mut incoming: Incoming,
    ) -> Result<Reply, Problem> {
        if self.is_for_operators() {
            incoming.body = incoming.body.at_most(limits::ORDER_BYTES_MAX);
        }
        let answered = (self.handler)(api, incoming).await;
        if let Err(problem) = &answered {
            // Else the document would not tell the truth.
            debug_assert!(
                self.kinds().contains(&problem.kind()) || problem.kind() == Kind::Internal,
                "{} {} does not declare {:?}",
                self.method,
                self.path,
                problem.kind()
            );
        }
        answered
    }

    /// Everything that can be wrong, in the order of the table of kinds.
    pub(super) fn kinds(&self) -> Vec<Kind> {
        let mut kinds = self.errors.clone();
        if self.access != Access::Anybody {
            kinds.extend([Kind::Unauthorized, Kind::Forbidden]);
            kinds.extend([Kind::StoreFailed, Kind::Stopped]);
        }
        if !self.is_for_operators() || self.method != Method::GET {
            kinds.push(Kind::Busy);
        }
        if is_read(&self.query_schema) {
            kinds.push(Kind::InvalidQuery);
        }
        if self.path.contains('{') {
            kinds.push(Kind::InvalidId);
        }
        if !self.headers.is_empty() {
            kinds.push(Kind::InvalidHeader);
        }
        if self.method != Method::GET {
            kinds.extend([Kind::InvalidBody, Kind::UnsupportedMediaType]);
            kinds.extend([Kind::BodyTooLarge, Kind::BodyTimeout]);
        }
        if self.need != Need::None {
            kinds.extend([Kind::MalformedJson, Kind::InvalidField]);
        }
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

/// The schema of a parameter struct's field, for a document.
pub(super) fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let fields = schema.get("properties").and_then(Value::as_object);
    fields.into_iter().flatten()
}

/// Finds endpoints.
pub(super) struct Router {
    pub(super) endpoints: Vec<Endpoint>,
    paths: Paths,
}

/// The parameters of a path, by their names.
pub(super) type PathParameters = Vec<(String, String)>;

impl Router {
    /// The table of these rows.
    pub(super) fn new(endpoints: Vec<Endpoint>) -> Self {
        let paths = Paths::new(endpoints.iter().map(|endpoint| endpoint.path));
        Self { endpoints, paths }
    }

    /// The endpoint of a path and a method, and the parts of the path that stand for its parameters.
    /// HEAD asks what GET asks, and the server leaves the body out.
    pub(super) fn find(
        &self,
        method: &Method,
        path: &str,
    ) -> Result<(&Endpoint, PathParameters), Problem> {
        let wanted = if *method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        let Some((of_path, captures)) = self.paths.at(path) else {
            let problem = format!("there is nothing at {path}");
            return Err(Problem::new(Kind::UnknownRoute, problem));
        };
        let of_path = of_path.iter().filter_map(|at| self.endpoints.get(*at));
        let of_method = |endpoint: &&Endpoint| endpoint.method == *wanted;
        let Some(endpoint) = of_path.clone().find(of_method) else {
            let mut allowed: Vec<&str> = of_path.map(|e| e.method.as_str()).collect();
            if allowed.contains(&"GET") {
                allowed.push("HEAD");
            }
            let allowed = allowed.join(", ");
            return Err(Problem::wrong_method(method.as_str(), path, &allowed));
        };
        let decoded = captures.into_iter().map(|(name, raw)| {
            let Some(value) = query::decode_segment(&raw) else {
                let problem = format!("{raw} is not percent-encoded UTF-8");
                return Err(Problem::of_field(Kind::InvalidId, &name, problem));
            };
            Ok((name, value))
        });
        Ok((endpoint, decoded.collect::<Result<_, _>>()?))
    }
}

/// Whether anybody looks at a query of this schema: one that nobody does may be anything.
fn is_read(query_schema: &Value) -> bool {
    let names = query_schema.get("properties").and_then(Value::as_object);
    query_schema.get("additionalProperties").is_some()
        || names.is_some_and(|names| !names.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_of_nothing_is_empty_and_closed() {
        let schema = schema_of::<Nothing>();
        assert!(properties(&schema).next().is_none());
        assert_eq!(schema["additionalProperties"], false);
    }
}
