//! A node's values or children: an array of which a copy shares all but what it changes.
//!
//! Copying 48 reference-counted elements means touching 48 cache lines that are elsewhere. A copy of a column touches one,
//! and clones the element that changes; when too many have changed, one full copy is made and pays for them all.

use super::make_room;
use std::sync::Arc;

/// Elements that a column grows by.
const ROOM: usize = 8;
/// Changes that a column keeps beside its base.
const CHANGED_MAX: usize = 8;

/// An array with cheap copies.
#[derive(Clone, Debug)]
pub struct Column<T> {
    base: Arc<Vec<T>>,
    /// What holds instead of the base's element, which is shared; in no order, each once.
    changed: Vec<(u8, T)>,
}

impl<T> Default for Column<T> {
    fn default() -> Self {
        Column::from(Vec::new())
    }
}

impl<T> From<Vec<T>> for Column<T> {
    fn from(elements: Vec<T>) -> Self {
        Column { base: Arc::new(elements), changed: Vec::new() }
    }
}

impl<T: Clone> Column<T> {
    pub fn len(&self) -> usize {
        self.base.len()
    }

    /// # Panics
    /// If there is no such element.
    pub fn get(&self, at: usize) -> &T {
        match self.changed.iter().find(|(i, _)| usize::from(*i) == at) {
            Some((_, element)) => element,
            None => &self.base[at],
        }
    }

    /// The element, to be changed.
    ///
    /// # Panics
    /// If there is no such element.
    pub fn get_mut(&mut self, at: usize) -> &mut T {
        let known = self.changed.iter().position(|(i, _)| usize::from(*i) == at);
        if let Some(known) = known {
            return &mut self.changed[known].1;
        }
        if self.changed.len() == CHANGED_MAX || Arc::get_mut(&mut self.base).is_some() {
            return &mut self.all()[at];
        }
        // A node has at most 66 elements.
        self.changed.push((at as u8, self.base[at].clone()));
        let last = self.changed.len() - 1;
        &mut self.changed[last].1
    }

    /// All elements, nobody else's.
    pub fn all(&mut self) -> &mut Vec<T> {
        let base = Arc::make_mut(&mut self.base);
        for (at, element) in std::mem::take(&mut self.changed) {
            base[usize::from(at)] = element;
        }
        base
    }

    pub fn insert(&mut self, at: usize, element: T) {
        let all = self.all();
        make_room(all, 1, ROOM);
        all.insert(at, element);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_never_changes_and_shares_what_it_can() {
        let element = Arc::new(0);
        let mut column = Column::from(vec![element.clone(); 60]);
        let before = column.clone();
        assert_eq!(Arc::strong_count(&element), 61, "copies clone no element");
        for at in 0..CHANGED_MAX {
            *column.get_mut(at) = Arc::new(at);
            *column.get_mut(at) = Arc::new(at + 100);
        }
        assert_eq!(Arc::strong_count(&element), 61);
        let middle = column.clone();
        *column.get_mut(50) = Arc::new(7);
        assert_eq!(Arc::strong_count(&element), 61 + 60 - CHANGED_MAX - 1, "one full copy for many changes");
        *column.get_mut(51) = Arc::new(8);
        let all = |column: &Column<Arc<usize>>| (0..column.len()).map(|at| **column.get(at)).collect::<Vec<_>>();
        assert!(all(&before).iter().all(|n| *n == 0));
        assert_eq!(all(&middle)[..9], [100, 101, 102, 103, 104, 105, 106, 107, 0]);
        assert_eq!((all(&column)[7], all(&column)[50], all(&column)[51]), (107, 7, 8));
    }
}
