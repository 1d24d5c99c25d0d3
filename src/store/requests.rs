//! Where the request of a job is found, and what is left of its row when it goes. What such a row is stands in
//! `packs.rs`.

use super::error::Result;
use super::packs::{self, Pack};
use super::state::Merged;
use crate::model::{Request, Seq};

type Bytes = &'static [u8];

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
        let row = row.value();
        let body = Pack::read(first.value(), row)?.request(seq.0, row)?;
        body.map(packs::parsed).transpose()
    }

    /// The row without that of the job in this place, and the key of both; `None` in the place of the row: it had no other.
    /// Answers also how many bytes go.
    pub(super) fn without(&self, seq: Seq) -> Result<Option<(u64, Option<Vec<u8>>, u64)>> {
        let Some((first, row)) = self.0.floor(seq.0)? else {
            return Ok(None);
        };
        let (first, row) = (first.value(), row.value());
        let pack = Pack::read(first, row)?;
        let Some(gone) = pack.request(seq.0, row)? else {
            return Ok(None);
        };
        let bytes = gone.len() as u64;
        let rest = pack.others(seq.0, row)?;
        let rest = (!rest.is_empty()).then(|| packs::written(&rest));
        Ok(Some((first, rest, bytes)))
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
