//! What becomes of uploaded files, and of the batches that are made of them.

use super::batches::keep;
use crate::model::{Applied, BatchInput, FileChange, InputChange, InputStage, Refusal};
use crate::rows::Rows;

type Decision<E> = Result<Result<Applied, Refusal>, E>;

/// A change of what a batch is made of. Who changes it knew its version.
pub(super) fn input<R: Rows>(rows: &mut R, change: &InputChange) -> Decision<R::Error> {
    match change {
        InputChange::Begin(new, batch) => {
            if let Some(stored) = rows.input(new.id)? {
                // Asked twice.
                let is_same = stored.key_id == new.key_id
                    && stored.file == new.file
                    && stored.endpoint == new.endpoint;
                return Ok(match is_same {
                    true => Ok(Applied::Done),
                    false => Err(Refusal::StaleInput(new.id)),
                });
            }
            match rows.file(new.file)? {
                Some(file) if file.is_whole() => {}
                _ => return Ok(Err(Refusal::NoSuchFile(new.file))),
            }
            rows.put_input(new)?;
            rows.put_batch(batch)?;
        }
        InputChange::Put(new) => {
            let stored = rows.input(new.id)?;
            if stored.map(|input| input.version) != new.version.checked_sub(1) {
                return Ok(Err(Refusal::StaleInput(new.id)));
            }
            rows.put_input(new)?;
            follow(rows, new)?;
        }
        InputChange::Forget(id) => rows.remove_input(*id)?,
    }
    Ok(Ok(Applied::Done))
}

/// What a batch and its file become with what it is made of.
fn follow<R: Rows>(rows: &mut R, input: &BatchInput) -> Result<(), R::Error> {
    if let Some(mut batch) = rows.batch(input.id)? {
        match (input.cancelled_at, input.settled_at) {
            (Some(at), _) if batch.cancelled_at.is_none() => batch.cancel(at),
            (_, Some(at)) if !batch.closed => batch.close(at),
            _ => {}
        }
        keep(rows, &batch)?;
    }
    if input.deletes_file
        && input.stage == InputStage::Inserted
        && rows.reader_of(input.file)?.is_none()
        && let Some(file) = rows.file(input.file)?
    {
        rows.remove_file(&file)?;
    }
    Ok(())
}

/// A change of a file. What was done before is done.
pub(super) fn file<R: Rows>(rows: &mut R, change: &FileChange) -> Decision<R::Error> {
    match change {
        FileChange::Begin(new) => {
            if rows.file(new.id)?.is_none() {
                rows.put_file(new)?;
            }
        }
        FileChange::Part { id, number, bytes } => {
            let Some(mut file) = rows.file(*id)?.filter(|file| !file.is_whole()) else {
                return Ok(Err(Refusal::NoSuchFile(*id)));
            };
            if *number == file.parts {
                rows.put_file_part(*id, *number, bytes)?;
                file.parts += 1;
                file.bytes += bytes.len() as u64;
                rows.put_file(&file)?;
            }
        }
        FileChange::Finish { id, name } => {
            let Some(mut file) = rows.file(*id)? else {
                return Ok(Err(Refusal::NoSuchFile(*id)));
            };
            file.uploaded_by = None;
            file.name.clone_from(name);
            rows.put_file(&file)?;
        }
        FileChange::Remove(id) => {
            if let Some(batch) = rows.reader_of(*id)? {
                return Ok(Err(Refusal::FileInUse { file: *id, batch }));
            }
            match rows.file(*id)? {
                Some(file) => rows.remove_file(&file)?,
                None => return Ok(Err(Refusal::NoSuchFile(*id))),
            }
        }
    }
    Ok(Ok(Applied::Done))
}
