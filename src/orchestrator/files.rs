//! Uploaded files, and batches that are made of their lines.

use std::io;
use std::sync::Arc;

use onelane_actors::ports::{Store, StoreError};
use onelane_actors::protocol::SubmitError;
use onelane_core::model::{
    Batch, BatchId, BatchInput, FileChange, FileId, InputChange, KeyId, Refusal, StoredFile,
    Transition, limits,
};

use super::Orchestrator;
use crate::error::Error;

/// A batch that is made of a file, with its own row as long as it has jobs or may get some.
pub(crate) struct BatchOfFile {
    pub(crate) input: BatchInput,
    pub(crate) batch: Option<Batch>,
}

impl Orchestrator {
    /// Begins to take a file in, of this client key or of an operator.
    pub(crate) async fn begin_file(&self, key_id: Option<KeyId>) -> Result<StoredFile, Error> {
        let ports = &self.inner.ports;
        let now = ports.clock.now();
        // An id of its own kind, made as those of jobs are.
        let id = FileId::from_bytes(*ports.ids.job_id(now).as_bytes());
        let file = StoredFile {
            key_id,
            ..StoredFile::new(id, "", now, ports.instance)
        };
        self.change_file(FileChange::Begin(file.clone())).await?;
        Ok(file)
    }

    /// Puts the next part of a file on disk.
    pub(crate) async fn add_to_file(
        &self,
        id: FileId,
        number: u32,
        bytes: Arc<[u8]>,
    ) -> Result<(), Error> {
        self.change_file(FileChange::Part { id, number, bytes })
            .await
    }

    /// A file is whole from now on.
    pub(crate) async fn finish_file(&self, id: FileId, name: String) -> Result<StoredFile, Error> {
        self.change_file(FileChange::Finish { id, name }).await?;
        self.file(id).await?.ok_or(Error::NoSuchFile(id))
    }

    /// Removes a file with its content. Jobs that were made of it stay.
    pub(crate) async fn remove_file(&self, id: FileId) -> Result<(), Error> {
        self.change_file(FileChange::Remove(id)).await
    }

    async fn change_file(&self, change: FileChange) -> Result<(), Error> {
        let mut decisions = self
            .commit(vec![Transition::File(Box::new(change))])
            .await?;
        match decisions.pop() {
            Some(Ok(_)) => Ok(()),
            Some(Err(refusal)) => Err(SubmitError::Refused(refusal).into()),
            None => Err(SubmitError::Unknown.into()),
        }
    }

    /// A file, also one that is not whole.
    pub(crate) async fn file(&self, id: FileId) -> Result<Option<StoredFile>, Error> {
        self.read(move |store| store.file(id)).await
    }

    /// Every file, oldest first.
    pub(crate) async fn all_files(&self) -> Result<Vec<StoredFile>, Error> {
        self.read(|store| {
            let mut all: Vec<StoredFile> = Vec::new();
            loop {
                let last = all.last().map(|file| file.id);
                let page = store.files(last, limits::PAGE_ROWS_MAX)?;
                let is_last = page.len() < limits::PAGE_ROWS_MAX;
                all.extend(page);
                if is_last {
                    return Ok(all);
                }
            }
        })
        .await
    }

    /// A part of a file's content.
    pub(crate) async fn file_part(
        &self,
        id: FileId,
        number: u32,
    ) -> Result<Option<Vec<u8>>, Error> {
        self.read(move |store| store.file_part(id, number)).await
    }

    /// Removes what an upload left behind that another process began.
    pub(crate) async fn remove_torn_files(&self) -> Result<(), Error> {
        let mine = self.inner.ports.instance;
        for file in self.all_files().await? {
            if file.uploaded_by.is_some_and(|process| process != mine) {
                self.remove_file(file.id).await?;
            }
        }
        Ok(())
    }

    /// Reads a file's content, off the async workers.
    pub(crate) async fn read_file<T: Send + 'static>(
        &self,
        id: FileId,
        read: impl FnOnce(FileReader<'_>) -> T + Send + 'static,
    ) -> Result<T, Error> {
        self.read(move |store| Ok(read(FileReader::new(store, id))))
            .await
    }

    /// Puts a batch on disk that is made of a file; its lines are looked through later. Asked again with the same id
    /// for the same file it is the same batch.
    pub(crate) async fn begin_batch_of_file(
        &self,
        input: BatchInput,
        name: String,
    ) -> Result<BatchOfFile, Error> {
        let batch = Batch::new(input.id, name, input.created_at);
        let id = input.id;
        let change = InputChange::Begin(input, Box::new(batch));
        if let Some(refusal) = self.change_input(change).await? {
            return Err(SubmitError::Refused(refusal).into());
        }
        let found = self.batch_of_file(id).await?;
        found.ok_or(Error::NoSuchBatch(id))
    }

    /// The next version of what a batch is made of. `false`: it is another one by now.
    pub(crate) async fn put_input(&self, input: BatchInput) -> Result<bool, Error> {
        Ok(self.change_input(InputChange::Put(input)).await?.is_none())
    }

    /// Forgets a batch that has no jobs.
    pub(crate) async fn forget_input(&self, id: BatchId) -> Result<(), Error> {
        self.change_input(InputChange::Forget(id)).await.map(drop)
    }

    async fn change_input(&self, change: InputChange) -> Result<Option<Refusal>, Error> {
        let change = Transition::Input(Box::new(change));
        match self.commit(vec![change]).await?.pop() {
            Some(decision) => Ok(decision.err()),
            None => Err(SubmitError::Unknown.into()),
        }
    }

    /// A batch that is made of a file.
    pub(crate) async fn batch_of_file(&self, id: BatchId) -> Result<Option<BatchOfFile>, Error> {
        self.read(move |store| {
            let Some(input) = store.batch_input(id)? else {
                return Ok(None);
            };
            let batch = store.batch(id)?;
            Ok(Some(BatchOfFile { input, batch }))
        })
        .await
    }

    /// What every batch of a file is made of, in the order of their ids.
    pub(crate) async fn all_inputs(&self) -> Result<Vec<BatchInput>, Error> {
        self.read(|store| {
            let mut all: Vec<BatchInput> = Vec::new();
            loop {
                let last = all.last().map(|input| input.id);
                let page = store.batch_inputs(last, limits::PAGE_ROWS_MAX)?;
                let is_last = page.len() < limits::PAGE_ROWS_MAX;
                all.extend(page);
                if is_last {
                    return Ok(all);
                }
            }
        })
        .await
    }

    /// Bytes that nobody can guess; `None`: the machine has no randomness now.
    #[cfg(feature = "desk")]
    pub(crate) fn random_secret(&self) -> Option<[u8; 32]> {
        self.inner.ports.ids.secret()
    }

    /// A number for something that has no name.
    pub(crate) fn random_number(&self) -> u64 {
        self.inner.ports.ids.seed()
    }
}

/// Where a reader is in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct FilePlace {
    part: u32,
    at: usize,
}

/// Reads a file part by part: one of them is in memory at a time.
pub(crate) struct FileReader<'s> {
    store: &'s dyn Store,
    id: FileId,
    place: FilePlace,
    part: Option<Vec<u8>>,
}

impl<'s> FileReader<'s> {
    fn new(store: &'s dyn Store, id: FileId) -> Self {
        Self {
            store,
            id,
            place: FilePlace::default(),
            part: None,
        }
    }

    /// The store that the file is in.
    pub(crate) const fn store(&self) -> &'s dyn Store {
        self.store
    }

    /// From a place on.
    pub(crate) fn beginning_at(self, place: FilePlace) -> Self {
        Self {
            place,
            part: None,
            ..self
        }
    }

    /// Where it is.
    pub(crate) const fn place(&self) -> FilePlace {
        self.place
    }
}

impl io::Read for FileReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        use io::BufRead as _;
        let read = self.fill_buf()?.read(into)?;
        self.consume(read);
        Ok(read)
    }
}

impl io::BufRead for FileReader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        loop {
            let length = match &self.part {
                Some(part) => part.len(),
                None => {
                    let part = self.store.file_part(self.id, self.place.part);
                    let part = part.map_err(failed)?;
                    let Some(part) = part else { return Ok(&[]) };
                    self.part.insert(part).len()
                }
            };
            if self.place.at < length {
                break;
            }
            self.place = FilePlace {
                part: self.place.part + 1,
                at: 0,
            };
            self.part = None;
        }
        let part = self.part.as_deref().unwrap_or_default();
        Ok(part.get(self.place.at..).unwrap_or_default())
    }

    fn consume(&mut self, bytes: usize) {
        self.place.at += bytes;
    }
}

fn failed(error: StoreError) -> io::Error {
    io::Error::other(error)
}
