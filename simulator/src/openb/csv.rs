//! Tables as text. They come from strangers: each error says where it is and what would be right.

use std::collections::HashMap;

/// What is wrong with an input, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// The header lacks a column.
    #[error("{file}: no column {column} in the first line; it has {found}")]
    NoColumn {
        /// The file's name.
        file: String,
        /// The column.
        column: &'static str,
        /// The columns that are there.
        found: String,
    },
    /// A line ends before a column.
    #[error("{file}, line {line}: ends before column {column}")]
    Short {
        /// The file's name.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The column.
        column: &'static str,
    },
    /// A cell holds what it must not.
    #[error("{file}, line {line}, column {column}: {text:?} is not {expect}")]
    Cell {
        /// The file's name.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The column.
        column: &'static str,
        /// What stands there, cut short.
        text: String,
        /// What would be right.
        expect: String,
    },
    /// There is nothing in the file.
    #[error("{file}: no {what}")]
    Empty {
        /// The file's name.
        file: String,
        /// What is missing.
        what: &'static str,
    },
    /// Two inputs do not belong together.
    #[error("{file}: {found} lines, where {expect}")]
    Count {
        /// The file's name.
        file: String,
        /// How many there are.
        found: usize,
        /// How many there should be, and why.
        expect: String,
    },
}

/// So much of a wrong cell is told.
const TOLD_CHARS: usize = 40;

/// A table with a header, read column by name.
pub(super) struct Table<'a> {
    file: &'a str,
    columns: HashMap<&'a str, usize>,
    header: &'a str,
    lines: std::iter::Enumerate<std::str::Lines<'a>>,
}

/// One line of a table.
pub(super) struct Row<'a> {
    file: &'a str,
    line: usize,
    cells: Vec<&'a str>,
}

impl<'a> Table<'a> {
    pub fn new(file: &'a str, text: &'a str) -> Self {
        let mut lines = text.lines().enumerate();
        let header = lines.next().map_or("", |(_, line)| line.trim_start_matches('\u{feff}'));
        let columns = header.split(',').enumerate().map(|(place, name)| (name.trim(), place)).collect();
        Self { file, columns, header, lines }
    }

    /// The place of a column.
    ///
    /// # Errors
    /// Where the header lacks it.
    pub fn column(&self, column: &'static str) -> Result<Column, TraceError> {
        let place = self.columns.get(column).copied().ok_or_else(|| TraceError::NoColumn {
            file: self.file.to_owned(),
            column,
            found: shortened(self.header),
        })?;
        Ok(Column { name: column, place })
    }

    /// The lines that are not empty.
    pub fn rows(self) -> impl Iterator<Item = Row<'a>> {
        let file = self.file;
        let full = self.lines.filter(|(_, line)| !line.trim().is_empty());
        full.map(move |(line, text)| Row { file, line: line + 1, cells: text.split(',').collect() })
    }
}

/// A column of a table.
#[derive(Clone, Copy)]
pub(super) struct Column {
    name: &'static str,
    place: usize,
}

impl<'a> Row<'a> {
    pub fn text(&self, column: Column) -> Result<&'a str, TraceError> {
        let short = || TraceError::Short { file: self.file.to_owned(), line: self.line, column: column.name };
        self.cells.get(column.place).map(|cell| cell.trim()).ok_or_else(short)
    }

    pub fn number(&self, column: Column, most: u64) -> Result<u64, TraceError> {
        let text = self.text(column)?;
        let number = text.parse().ok().filter(|&number| number <= most);
        number.ok_or_else(|| self.wrong(column, text, format!("a whole number of at most {most}")))
    }

    pub fn wrong(&self, column: Column, text: &str, expect: String) -> TraceError {
        TraceError::Cell {
            file: self.file.to_owned(),
            line: self.line,
            column: column.name,
            text: shortened(text),
            expect,
        }
    }
}

/// The numbers of a file with one in each line, each below `below`.
pub(super) fn numbers(
    file: &str,
    text: &str,
    column: &'static str,
    below: usize,
) -> Result<Vec<usize>, TraceError> {
    let full = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let number = |(line, text): (usize, &str)| {
        let number = text.trim().parse().ok().filter(|&number: &usize| number < below);
        number.ok_or_else(|| TraceError::Cell {
            file: file.to_owned(),
            line: line + 1,
            column,
            text: shortened(text),
            expect: format!("a whole number below {below}"),
        })
    };
    full.map(number).collect()
}

fn shortened(text: &str) -> String {
    text.chars().take(TOLD_CHARS).collect()
}
