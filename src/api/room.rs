//! Room for uploaded files: for all of them together, and for those of each client key. What uploads under way may
//! come to is counted with what is kept, so that several at once go no further than one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use onelane_core::model::{BatchSettings, KeyId, StoredFile};

use super::limits;
use super::problem::{Kind, Problem};
use crate::orchestrator::Orchestrator;

/// What an upload under way may come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Claimed {
    number: u64,
    key: Option<KeyId>,
    bytes: u64,
}

/// The uploads under way.
#[derive(Debug, Default)]
struct Claims {
    last: u64,
    all: Vec<Claimed>,
}

/// Hands out room for files.
#[derive(Debug)]
pub(super) struct Rooms {
    settings: BatchSettings,
    claims: Mutex<Claims>,
}

/// The right to take a file in; dropped, the room is free again, or the file has it.
#[derive(Debug)]
pub(super) struct Claim {
    rooms: Arc<Rooms>,
    number: u64,
    /// Bytes that the file may have.
    pub(super) bytes: u64,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claims = self.rooms.claims();
        claims.all.retain(|claim| claim.number != self.number);
    }
}

/// Files and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Kept {
    files: usize,
    bytes: u64,
}

impl Kept {
    /// Bytes that are left, or why a file of `wanted` bytes has no room. `of`: whose files they are, in words.
    fn left(
        self,
        of: &str,
        wanted: Option<u64>,
        bytes_max: u64,
        files_max: usize,
    ) -> Result<u64, Problem> {
        let left = bytes_max.saturating_sub(self.bytes);
        if self.files >= files_max || left < wanted.unwrap_or(1) {
            let Self { files, bytes } = self;
            let problem = format!(
                "{of}{files} files of {bytes} bytes are kept or uploaded now, and {bytes_max} bytes or {files_max} \
                 files may be; delete some"
            );
            return Err(Problem::new(Kind::FilesFull, problem));
        }
        Ok(left)
    }
}

impl Rooms {
    pub(super) fn new(settings: BatchSettings) -> Self {
        Self {
            settings,
            claims: Mutex::default(),
        }
    }

    fn claims(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for a file of this key, or of no key. `declared`: the bytes of the whole form, where its client says so;
    /// else as many are claimed as a file may have, or are left.
    pub(super) async fn claim(
        self: &Arc<Self>,
        lane: &Orchestrator,
        key: Option<KeyId>,
        declared: Option<u64>,
    ) -> Result<Claim, Problem> {
        let of_one = self.settings.file_bytes_max;
        let with_frame = of_one.saturating_add(limits::UPLOAD_FRAME_BYTES_MAX);
        if declared.is_some_and(|bytes| bytes > with_frame) {
            return Err(too_large(of_one));
        }
        // Its own is among the claims before files are counted: of two uploads at once each sees the other, as a
        // claim or as a file.
        let (mut claim, others) = self.begin(key, declared.unwrap_or(of_one))?;
        let files = lane.all_files().await?;
        claim.bytes = self.room(&files, &others, key, declared)?.min(of_one);
        self.shrink(&claim);
        Ok(claim)
    }

    fn begin(
        self: &Arc<Self>,
        key: Option<KeyId>,
        bytes: u64,
    ) -> Result<(Claim, Vec<Claimed>), Problem> {
        let mut claims = self.claims();
        let own = claims.all.iter().filter(|claim| claim.key == key);
        if key.is_some() && own.count() >= limits::UPLOADS_OF_KEY_MAX {
            let most = limits::UPLOADS_OF_KEY_MAX;
            let problem = format!(
                "{most} files of this key are uploaded at this moment, as many as may be; wait for one to end"
            );
            return Err(Problem::new(Kind::Busy, problem));
        }
        let others = claims.all.clone();
        claims.last += 1;
        let number = claims.last;
        claims.all.push(Claimed { number, key, bytes });
        drop(claims);
        let claim = Claim {
            rooms: Arc::clone(self),
            number,
            bytes,
        };
        Ok((claim, others))
    }

    fn shrink(&self, claim: &Claim) {
        let mut claims = self.claims();
        let own = claims.all.iter_mut().find(|own| own.number == claim.number);
        if let Some(own) = own {
            own.bytes = own.bytes.min(claim.bytes);
        }
    }

    /// Bytes that a file of this key may have.
    fn room(
        &self,
        files: &[StoredFile],
        others: &[Claimed],
        key: Option<KeyId>,
        declared: Option<u64>,
    ) -> Result<u64, Problem> {
        // One that is not whole has its claim.
        let files = files.iter().filter(|file| file.is_whole());
        let files = files.map(|file| (file.key_id, file.bytes));
        let (mut all, mut own) = (Kept::default(), Kept::default());
        for (of, bytes) in files.chain(others.iter().map(|claim| (claim.key, claim.bytes))) {
            let also_own = Some(&mut own).filter(|_| of == key);
            for kept in std::iter::once(&mut all).chain(also_own) {
                kept.files += 1;
                kept.bytes = kept.bytes.saturating_add(bytes);
            }
        }
        let BatchSettings {
            files_total_bytes_max,
            files_key_bytes_max,
            ..
        } = self.settings;
        let left = all.left("", declared, files_total_bytes_max, limits::FILES_MAX)?;
        let Some(key) = key else { return Ok(left) };
        let (of, files_max) = (format!("of client key {key} "), limits::FILES_OF_KEY_MAX);
        let own_left = own.left(&of, declared, files_key_bytes_max, files_max)?;
        Ok(left.min(own_left))
    }
}

/// A file that is larger than any may be.
pub(super) fn too_large(most: u64) -> Problem {
    let problem = format!("has more than {most} bytes, which is the limit");
    Problem::of_field(Kind::BodyTooLarge, "file", problem)
}

#[cfg(test)]
mod tests {
    use onelane_core::model::{FileId, Timestamp};

    use super::*;

    const ONE: Option<KeyId> = Some(KeyId::new(1));
    const TWO: Option<KeyId> = Some(KeyId::new(2));

    fn rooms() -> Arc<Rooms> {
        Arc::new(Rooms::new(BatchSettings {
            file_bytes_max: 500,
            files_total_bytes_max: 3_000,
            files_key_bytes_max: 1_000,
            ..BatchSettings::default()
        }))
    }

    fn file(key_id: Option<KeyId>, bytes: u64) -> StoredFile {
        StoredFile {
            key_id,
            bytes,
            uploaded_by: None,
            ..StoredFile::new(FileId::from_bytes([1; 16]), "a", Timestamp::default(), 1)
        }
    }

    #[test]
    fn a_key_has_room_for_its_own_files_and_what_others_have_counts_for_all_alone() {
        let rooms = rooms();
        let room = |files: &[StoredFile], key, declared| rooms.room(files, &[], key, declared).ok();
        assert_eq!(room(&[file(ONE, 900)], ONE, None), Some(100));
        assert_eq!(room(&[file(ONE, 900)], ONE, Some(101)), None);
        assert_eq!(room(&[file(ONE, 900)], ONE, Some(100)), Some(100));
        assert_eq!(room(&[file(ONE, 900)], TWO, Some(500)), Some(1_000));
        assert_eq!(room(&[file(None, 2_900)], TWO, None), Some(100));
        assert_eq!(room(&[file(None, 2_900)], None, None), Some(100));
        assert_eq!(
            room(&[file(ONE, 1_000)], ONE, None),
            None,
            "nothing is left"
        );
        let torn = StoredFile {
            uploaded_by: Some(1),
            ..file(ONE, 900)
        };
        assert_eq!(room(&[torn], ONE, Some(500)), Some(1_000), "it has a claim");
        let many = vec![file(ONE, 0); limits::FILES_OF_KEY_MAX];
        assert_eq!(room(&many, ONE, Some(1)), None);
        assert_eq!(room(&many, TWO, Some(1)), Some(1_000));
    }

    #[test]
    fn what_uploads_under_way_may_come_to_is_taken_and_free_again_when_they_end() {
        let rooms = rooms();
        let (first, none) = rooms.begin(ONE, 600).unwrap();
        assert_eq!(none, []);
        let (second, others) = rooms.begin(ONE, 500).unwrap();
        assert!(rooms.room(&[], &others, ONE, Some(500)).is_err());
        assert_eq!(rooms.room(&[], &others, ONE, None).ok(), Some(400));
        drop(first);
        drop(second);
        let all: Vec<Claim> = (0..limits::UPLOADS_OF_KEY_MAX)
            .map(|_| rooms.begin(ONE, 1).unwrap().0)
            .collect();
        let refused = rooms.begin(ONE, 1).unwrap_err();
        assert_eq!(refused.kind(), Kind::Busy);
        assert!(rooms.begin(TWO, 1).is_ok(), "another key's");
        drop(all);
        assert!(rooms.begin(ONE, 1).is_ok());
        assert_eq!(rooms.claims().all, []);
    }
}
