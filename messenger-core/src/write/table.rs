//! The rows of one table that a batch has loaded, made or changed.

use std::collections::HashMap;
use std::hash::Hash;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Clean,
    New,
    /// Only in the columns that every message moves.
    Advanced,
    Changed,
    Gone,
}

/// What a transaction must write of a table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Touched<'a, R> {
    pub(super) new: Vec<&'a R>,
    pub(super) advanced: Vec<&'a R>,
    pub(super) changed: Vec<&'a R>,
    pub(super) gone: Vec<&'a R>,
}

#[derive(Debug)]
pub(crate) struct Table<K, R> {
    rows: HashMap<K, (R, Mark)>,
    touched: Vec<K>,
}

impl<K, R> Default for Table<K, R> {
    fn default() -> Self {
        Self {
            rows: HashMap::new(),
            touched: Vec::new(),
        }
    }
}

impl<K: Clone + Eq + Hash, R> Table<K, R> {
    pub(crate) fn get(&self, key: &K) -> Option<&R> {
        let (row, mark) = self.rows.get(key)?;
        (*mark != Mark::Gone).then_some(row)
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &R> {
        let here = self.rows.values().filter(|(_, mark)| *mark != Mark::Gone);
        here.map(|(row, _)| row)
    }

    /// Gives a row to change, which will be written back; `None` if it is not there.
    pub(crate) fn change(&mut self, key: &K) -> Option<&mut R> {
        let (row, mark) = self.rows.get_mut(key)?;
        match mark {
            Mark::Clean => {
                *mark = Mark::Changed;
                self.touched.push(key.clone());
            }
            Mark::Advanced => *mark = Mark::Changed,
            Mark::New | Mark::Changed => {}
            Mark::Gone => return None,
        }
        Some(row)
    }

    /// Gives a row of which only those columns will be changed that every message moves, so that
    /// no send pays for the others.
    pub(crate) fn advance(&mut self, key: &K) -> Option<&mut R> {
        let (row, mark) = self.rows.get_mut(key)?;
        match mark {
            Mark::Clean => {
                *mark = Mark::Advanced;
                self.touched.push(key.clone());
            }
            Mark::New | Mark::Advanced | Mark::Changed => {}
            Mark::Gone => return None,
        }
        Some(row)
    }

    /// Adds a row that is not there.
    pub(crate) fn insert(&mut self, key: K, row: R) {
        // What goes and comes back within one transaction was in the database all the time.
        let mark = match self.rows.get(&key) {
            Some((_, Mark::Gone)) => Mark::Changed,
            _ => {
                self.touched.push(key.clone());
                Mark::New
            }
        };
        self.rows.insert(key, (row, mark));
    }

    /// Takes a row away, if it is there.
    pub(crate) fn remove(&mut self, key: &K) {
        let Some((_, mark)) = self.rows.get_mut(key) else {
            return;
        };
        match mark {
            Mark::New => {
                self.rows.remove(key);
                self.touched.retain(|touched| touched != key);
            }
            Mark::Clean => {
                *mark = Mark::Gone;
                self.touched.push(key.clone());
            }
            Mark::Advanced | Mark::Changed | Mark::Gone => *mark = Mark::Gone,
        }
    }

    /// Takes a row as it is in the database.
    pub(super) fn loaded(&mut self, key: K, row: R) {
        self.rows.entry(key).or_insert((row, Mark::Clean));
    }

    /// The rows to insert, to update and to delete, in the order in which they were touched.
    pub(super) fn touched(&self) -> Touched<'_, R> {
        let mut touched = Touched {
            new: Vec::new(),
            advanced: Vec::new(),
            changed: Vec::new(),
            gone: Vec::new(),
        };
        for key in &self.touched {
            match self.rows.get(key) {
                Some((row, Mark::New)) => touched.new.push(row),
                Some((row, Mark::Advanced)) => touched.advanced.push(row),
                Some((row, Mark::Changed)) => touched.changed.push(row),
                Some((row, Mark::Gone)) => touched.gone.push(row),
                Some((_, Mark::Clean)) | None => {}
            }
        }
        touched
    }

    /// Notes that the database now has what is here.
    pub(super) fn flushed(&mut self) {
        for key in self.touched.drain(..) {
            match self.rows.get_mut(&key) {
                Some((_, Mark::Gone)) => {
                    self.rows.remove(&key);
                }
                Some((_, mark)) => *mark = Mark::Clean,
                None => {}
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.touched.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_written_once_however_often_it_changes() {
        let mut table = Table::default();
        table.loaded(1, "as stored");
        table.loaded(2, "left alone");

        *table.change(&1).expect("loaded") = "first change";
        *table.change(&1).expect("loaded") = "second change";
        table.insert(3, "new");
        *table.change(&3).expect("inserted") = "new and changed";

        let touched = table.touched();
        assert_eq!(touched.new, [&"new and changed"]);
        assert_eq!(touched.changed, [&"second change"]);
        assert!(touched.gone.is_empty());
        table.flushed();
        let touched = table.touched();
        assert!(touched.new.is_empty() && touched.changed.is_empty());
        assert_eq!(table.change(&4), None);
    }

    #[test]
    fn a_row_that_goes_is_deleted_unless_it_never_was_there_or_comes_back() {
        let mut table = Table::default();
        table.loaded(1, "goes");
        table.loaded(2, "goes and comes back");

        table.remove(&1);
        assert_eq!(table.get(&1), None);
        assert_eq!(table.change(&1), None);
        table.remove(&2);
        table.insert(2, "is back");
        table.insert(3, "comes and goes");
        table.remove(&3);

        let touched = table.touched();
        assert!(touched.new.is_empty());
        assert_eq!(touched.changed, [&"is back"]);
        assert_eq!(touched.gone, [&"goes"]);
        table.flushed();
        assert_eq!(table.len(), 1);
    }
}
