//! What `onelane estimate` asks the daemon that has the store open.

use onelane::api::dialect::written;
use onelane::estimate::JobEstimate;
use onelane::model::{Currency, Submission};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{Daemon, Query};
use crate::cli::exit::{CliError, Exit};

#[derive(Deserialize)]
struct PriceList {
    currency: Currency,
}

#[derive(Deserialize)]
struct Estimates {
    jobs: Vec<Box<RawValue>>,
}

/// A job that would be refused.
#[derive(Deserialize)]
struct Refused {
    error: Why,
}

#[derive(Deserialize)]
struct Why {
    detail: String,
}

impl Daemon {
    /// What its price list counts in.
    pub(crate) async fn currency(&self) -> Result<Currency, CliError> {
        let answer = self.get("/api/admin/glm/prices", &Query::default()).await?;
        let PriceList { currency } = answer.read()?;
        Ok(currency)
    }

    /// What each of these jobs may cost, or why it would be refused.
    pub(crate) async fn estimate(
        &self,
        jobs: &[Submission],
    ) -> Result<Vec<Result<JobEstimate, String>>, CliError> {
        let body = list(jobs)?;
        let answer = self.post_list("/api/admin/glm/estimate", body).await?;
        let Estimates { jobs } = answer.read()?;
        let each = jobs.iter().map(|job| {
            if let Ok(Refused { error }) = serde_json::from_str(job.get()) {
                return Ok(Err(error.detail));
            }
            let read = serde_json::from_str(job.get());
            read.map(Ok).map_err(|error| {
                let problem = format!("an estimate is not what this version knows: {error}");
                CliError::new(Exit::NoDaemon, problem)
                    .help("use the onelane of the daemon's version; `onelane doctor` tells both")
            })
        });
        each.collect()
    }
}

/// Jobs as the API takes them.
pub(super) fn list(jobs: &[Submission]) -> Result<String, CliError> {
    let jobs: Result<Vec<String>, _> = jobs.iter().map(written).collect();
    let jobs = jobs.map_err(|error| CliError::new(Exit::Usage, error.to_string()))?;
    Ok(format!("[{}]", jobs.join(",")))
}
