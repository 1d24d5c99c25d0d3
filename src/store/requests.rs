//! Where the request of a job is found, and what is left of its row when it goes. What such a row is stands in
//! `packs.rs`.

use super::error::Result;
use super::packs::{self, Pack};
use super::state::Merged;
use crate::model::{Request, Seq};

type Bytes = &'static [u8];

/// A row of which a request goes.
pub(super) struct Without {
    /// Its key, which stays.
    pub(super) key: u64,
    /// What is left; `None`: it had no other.
    pub(super) rest: Option<Vec<u8>>,
    /// How many bytes go.
    pub(super) bytes: u64,
}

/// The requests of all jobs.
pub(super) struct Requests<'v>(Merged<'v, u64, Bytes>);

impl<'v> Requests<'v> {
    pub(super) const fn new(table: Merged<'v, u64, Bytes>) -> Self {
        Self(table)
    }

    /// That of the job in this place.
    pub(super) fn get(&self, seq: Seq) -> Result<Option<Request>> {
        let Some((first, row)) = self.0.floor(seq.0)? else {
            return Ok(None);
        };
        let body = packs::find(first.value(), row.value(), seq.0)?;
        body.map(packs::parsed).transpose()
    }

    /// What is left when that of the job in this place goes; `None`: it is not here.
    pub(super) fn without(&self, seq: Seq) -> Result<Option<Without>> {
        let Some((first, row)) = self.0.floor(seq.0)? else {
            return Ok(None);
        };
        let (key, row) = (first.value(), row.value());
        let pack = Pack::read(key, row)?;
        let Some(gone) = pack.request(seq.0, row)? else {
            return Ok(None);
        };
        let bytes = gone.len() as u64;
        let rest = pack.others(seq.0, row)?;
        let rest = (!rest.is_empty()).then(|| packs::written(&rest));
        Ok(Some(Without { key, rest, bytes }))
    }

    /// The key of each row, and the places that it has.
    pub(super) fn places(&self) -> Result<impl Iterator<Item = Result<(Seq, Result<Vec<Seq>>)>>> {
        Ok(self.0.iter()?.map(|item| {
            let (first, row) = item?;
            let first = first.value();
            Ok((Seq(first), packs::places(first, row.value())))
        }))
    }
}
