//! A store that hands out keys and takes them back.

use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;
use core::marker::PhantomData;

/// A key of a [`Slab`] of `T`. It may be taken by a later value once its own is removed.
pub(super) struct Key<T>(u32, PhantomData<fn() -> T>);

impl<T> Key<T> {
    const fn new(place: u32) -> Self {
        Self(place, PhantomData)
    }
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Key<T> {}

impl<T> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T> Eq for Key<T> {}

impl<T> PartialOrd for Key<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Key<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    pub(super) fn insert(&mut self, value: T) -> Key<T> {
        self.insert_with(|_| value)
    }

    /// Inserts a value that has to know its key.
    pub(super) fn insert_with(&mut self, value: impl FnOnce(Key<T>) -> T) -> Key<T> {
        let place = self.free.pop().unwrap_or_else(|| {
            let place = u32::try_from(self.places.len()).expect("callers bound what they insert");
            self.places.push(None);
            place
        });
        let key = Key::new(place);
        self.places[place as usize] = Some(value(key));
        key
    }

    pub(super) fn remove(&mut self, key: Key<T>) -> Option<T> {
        let value = self.places.get_mut(key.0 as usize)?.take()?;
        self.free.push(key.0);
        if self.is_empty() {
            // A burst of guests must not leave its tables behind.
            self.places = Vec::new();
            self.free = Vec::new();
        }
        Some(value)
    }

    pub(super) fn get(&self, key: Key<T>) -> Option<&T> {
        self.places.get(key.0 as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, key: Key<T>) -> Option<&mut T> {
        self.places.get_mut(key.0 as usize)?.as_mut()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.len() == self.free.len()
    }

    /// All keys that may be in use now; values may come and go meanwhile.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key<T>> + use<T> {
        (0..self.places.len() as u32).map(Key::new)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.places.iter().flatten()
    }
}
