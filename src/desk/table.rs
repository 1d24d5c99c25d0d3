//! The pages: a row says method, path, who may see it and what answers. Whoever is not logged in is sent to the login.

use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use warp::http::Method;

use super::asked::{Answered, Asked, Parts};
use super::gate::Entry;
use super::{
    Desk, alerts, audit, batches, budgets, calls, config, files, gate, holds, job, jobs, keys,
    live, models, orders, overview, reconciliation, slots, usage, watched,
};
use crate::api::site::{Access, Kind, Paths, Problem, Reply, Visit};

type Handler = Box<dyn Fn(Asked) -> BoxFuture<'static, Answered> + Send + Sync>;

/// A page, or what a form does.
pub(super) struct Row {
    method: Method,
    /// With parameters in braces.
    path: &'static str,
    access: Access,
    handler: Handler,
}

/// All of them.
pub(super) struct Table {
    rows: Vec<Row>,
    paths: Paths,
}

impl Table {
    fn new(rows: Vec<Row>) -> Self {
        let paths = Paths::new(rows.iter().map(|row| row.path));
        Self { rows, paths }
    }
}

impl Row {
    fn new<F, Fut>(method: Method, path: &'static str, access: Access, handler: F) -> Self
    where
        F: Fn(Asked) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Answered> + Send + 'static,
    {
        Self {
            method,
            path,
            access,
            handler: Box::new(move |asked| Box::pin(handler(asked))),
        }
    }
}

macro_rules! rows {
    ($($method:ident $path:literal $access:ident $handler:path;)*) => {
        vec![$(Row::new(Method::$method, $path, Access::$access, $handler)),*]
    };
}

/// The table. `Look` is for whoever may look, `Operate` for operators; forms are POSTed, and looked at twice
/// ([`gate`]).
pub(super) fn pages() -> Table {
    Table::new(rows! {
        GET "/" Look overview::page;
        GET "/desk" Look overview::page;
        GET "/desk/live" Look live::stream;
        GET "/desk/login" Anybody gate::login_page;
        POST "/desk/login" Anybody gate::log_in;
        POST "/desk/logout" Look gate::log_out;
        POST "/desk/look" Anybody gate::choose_look;
        GET "/desk/jobs" Look jobs::list;
        GET "/desk/jobs/bulk" Operate jobs::ask;
        POST "/desk/jobs/bulk" Operate jobs::change;
        GET "/desk/jobs/{id}" Look job::page;
        POST "/desk/jobs/{id}/reveal" Operate job::reveal;
        POST "/desk/jobs/{id}/retry" Operate job::retry;
        POST "/desk/jobs/{id}/cancel" Operate job::cancel;
        POST "/desk/jobs/{id}/priority" Operate job::reprioritise;
        POST "/desk/jobs/{id}/again" Operate job::again;
        POST "/desk/jobs/{id}/erase" Operate job::erase;
        GET "/desk/audit" Look audit::list;
        GET "/desk/usage" Look usage::page;
        GET "/desk/usage.csv" Look usage::csv;
        GET "/desk/reconciliation" Look reconciliation::page;
        GET "/desk/models" Look models::page;
        GET "/desk/budgets" Look budgets::page;
        GET "/desk/holds" Look holds::page;
        POST "/desk/breaker/reset" Operate holds::reset_breaker;
        GET "/desk/calls" Look calls::list;
        GET "/desk/calls.csv" Look calls::csv;
        POST "/desk/calls/settle" Operate calls::settle;
        GET "/desk/slots" Look slots::page;
        GET "/desk/batches" Look batches::list;
        GET "/desk/batches/results/{file}" Operate batches::results;
        POST "/desk/batches/{id}/cancel" Operate batches::cancel;
        GET "/desk/keys" Look keys::list;
        POST "/desk/keys" Operate keys::create;
        POST "/desk/keys/{id}/rotate" Operate keys::rotate;
        POST "/desk/keys/{id}/revoke" Operate keys::revoke;
        GET "/desk/alerts" Look alerts::page;
        POST "/desk/alerts/test" Operate alerts::test;
        POST "/desk/alerts/redeliver" Operate alerts::redeliver_all;
        POST "/desk/alerts/redeliver/{id}" Operate alerts::redeliver;
        GET "/desk/config" Look config::page;
        POST "/desk/config" Operate config::ask;
        POST "/desk/config/save" Operate config::save;
        POST "/desk/config/key" Operate config::replace_key;
        POST "/desk/pause" Operate orders::pause;
        POST "/desk/resume" Operate orders::resume;
        POST "/desk/release" Operate orders::release;
        POST "/desk/concurrency" Operate orders::concurrency;
        GET "/desk/assets/{name}" Anybody files::asset;
    })
}

/// The row of a request, with the parts of its path that stand for parameters.
fn find<'t>(table: &'t Table, method: &Method, path: &str) -> Result<(&'t Row, Parts), Problem> {
    let method = match *method == Method::HEAD {
        true => &Method::GET,
        false => method,
    };
    let Some((of_path, parts)) = table.paths.at(path) else {
        let problem = format!("there is nothing at {path}");
        return Err(Problem::new(Kind::UnknownRoute, problem));
    };
    let mut of_path = of_path.iter().filter_map(|at| table.rows.get(*at));
    let Some(row) = of_path.find(|row| row.method == *method) else {
        let problem = "this page takes no such request";
        return Err(Problem::new(Kind::WrongMethod, problem));
    };
    Ok((row, parts))
}

/// Answers a request for a page.
pub(super) async fn answer(desk: &Arc<Desk>, visit: Visit) -> Reply {
    match find(&desk.table, &visit.method, &visit.path) {
        Ok((row, parts)) => match gate::let_in(desk, visit, row.access, parts).await {
            Entry::In(asked) => {
                let failing = asked.failing();
                match watched::answer(desk, *asked, &row.handler).await {
                    Ok(reply) => reply,
                    Err(problem) => failing.page(&problem),
                }
            }
            Entry::Out(reply) => reply,
        },
        // Who may not look learns nothing of what there is.
        Err(problem) => match gate::let_in(desk, visit, Access::Look, Vec::new()).await {
            Entry::In(asked) => asked.failing().page(&problem),
            Entry::Out(reply) => reply,
        },
    }
}
