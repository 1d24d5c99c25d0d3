//! What a backend that stands above the file passes on to it: the locks, which are the file's, and its end; and one
//! that needs none.

macro_rules! locks_of_the_file {
    ($under:ident) => {
        fn close(&self) -> std::io::Result<()> {
            self.$under.close()
        }

        fn try_lock_range(
            &self,
            start: std::ops::Bound<u64>,
            end: std::ops::Bound<u64>,
        ) -> Result<bool, redb::BackendError> {
            self.$under.try_lock_range(start, end)
        }

        fn try_lock_shared_range(
            &self,
            start: std::ops::Bound<u64>,
            end: std::ops::Bound<u64>,
        ) -> Result<bool, redb::BackendError> {
            self.$under.try_lock_shared_range(start, end)
        }

        fn lock_range(
            &self,
            start: std::ops::Bound<u64>,
            end: std::ops::Bound<u64>,
        ) -> Result<(), redb::BackendError> {
            self.$under.lock_range(start, end)
        }

        fn lock_shared_range(
            &self,
            start: std::ops::Bound<u64>,
            end: std::ops::Bound<u64>,
        ) -> Result<(), redb::BackendError> {
            self.$under.lock_shared_range(start, end)
        }

        fn unlock_range(
            &self,
            start: std::ops::Bound<u64>,
            end: std::ops::Bound<u64>,
        ) -> Result<(), redb::BackendError> {
            self.$under.unlock_range(start, end)
        }

        fn query_lock_range(
            &self,
            start: std::ops::Bound<u64>,
            end: std::ops::Bound<u64>,
        ) -> Result<bool, redb::BackendError> {
            self.$under.query_lock_range(start, end)
        }
    };
}

/// For a backend under which somebody holds the lock already.
macro_rules! no_locks {
    () => {
        fn try_lock_range(
            &self,
            _: std::ops::Bound<u64>,
            _: std::ops::Bound<u64>,
        ) -> Result<bool, redb::BackendError> {
            Ok(true)
        }

        fn try_lock_shared_range(
            &self,
            _: std::ops::Bound<u64>,
            _: std::ops::Bound<u64>,
        ) -> Result<bool, redb::BackendError> {
            Ok(true)
        }

        fn lock_range(
            &self,
            _: std::ops::Bound<u64>,
            _: std::ops::Bound<u64>,
        ) -> Result<(), redb::BackendError> {
            Ok(())
        }

        fn lock_shared_range(
            &self,
            _: std::ops::Bound<u64>,
            _: std::ops::Bound<u64>,
        ) -> Result<(), redb::BackendError> {
            Ok(())
        }

        fn unlock_range(
            &self,
            _: std::ops::Bound<u64>,
            _: std::ops::Bound<u64>,
        ) -> Result<(), redb::BackendError> {
            Ok(())
        }

        fn query_lock_range(
            &self,
            _: std::ops::Bound<u64>,
            _: std::ops::Bound<u64>,
        ) -> Result<bool, redb::BackendError> {
            Ok(false)
        }
    };
}

pub(super) use {locks_of_the_file, no_locks};
