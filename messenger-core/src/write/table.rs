//! The rows of one table that a batch has loaded, made or changed.

use std::collections::HashMap;
use std::hash::Hash;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Clean,
    New,
    Changed,
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
        self.rows.get(key).map(|(row, _)| row)
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &R> {
        self.rows.values().map(|(row, _)| row)
    }

    /// Gives a row to change, which will be written back; `None` if it is not there.
    pub(crate) fn change(&mut self, key: &K) -> Option<&mut R> {
        let (row, mark) = self.rows.get_mut(key)?;
        if *mark == Mark::Clean {
            *mark = Mark::Changed;
            self.touched.push(key.clone());
        }
        Some(row)
    }

    /// Adds a row that does not exist in the database yet.
    pub(crate) fn insert(&mut self, key: K, row: R) {
        self.touched.push(key.clone());
        self.rows.insert(key, (row, Mark::New));
    }

    /// Takes a row as it is in the database.
    pub(super) fn loaded(&mut self, key: K, row: R) {
        self.rows.entry(key).or_insert((row, Mark::Clean));
    }

    /// The rows to insert and the rows to update, in the order in which they were touched.
    pub(super) fn touched(&self) -> (Vec<&R>, Vec<&R>) {
        let mut new = Vec::new();
        let mut changed = Vec::new();
        for key in &self.touched {
            match self.rows.get(key) {
                Some((row, Mark::New)) => new.push(row),
                Some((row, Mark::Changed)) => changed.push(row),
                Some((_, Mark::Clean)) | None => {}
            }
        }
        (new, changed)
    }

    /// Notes that the database now has what is here.
    pub(super) fn flushed(&mut self) {
        for key in self.touched.drain(..) {
            if let Some((_, mark)) = self.rows.get_mut(&key) {
                *mark = Mark::Clean;
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

        assert_eq!(
            table.touched(),
            (vec![&"new and changed"], vec![&"second change"])
        );
        table.flushed();
        assert_eq!(table.touched(), (vec![], vec![]));
        assert_eq!(table.change(&4), None);
    }
}
