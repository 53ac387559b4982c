//! What is on the screen, and what keys do to it. Pure: neither a terminal nor a cluster.

use std::sync::Arc;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::rows::{Row, Sort, details, rows};
use crate::world::World;

/// What was read.
#[derive(Debug, Clone)]
pub struct Read {
    /// The cluster.
    pub world: Arc<World>,
    /// How long that took.
    pub took_ms: u64,
}

/// What is on the screen.
#[derive(Debug)]
pub struct View {
    namespace: Option<String>,
    world: Option<Arc<World>>,
    /// How long the last reading took.
    pub took_ms: u64,
    /// Why the last reading failed, if it did.
    pub error: Option<String>,
    rows: Vec<Row>,
    /// What the rows are sorted by.
    pub sort: Sort,
    reversed: bool,
    /// The node on which the cursor is.
    selected: Option<String>,
    /// What names and models must hold.
    pub filter: String,
    /// Whether what is typed goes into the filter.
    pub is_typing: bool,
    /// Whether the GPUs of the selected node are shown.
    pub is_open: bool,
    /// How many rows a page has, as it was drawn last.
    pub page: usize,
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Yes.
    On,
    /// The person has had enough.
    Quit,
}

impl View {
    /// Nothing is known yet. With a namespace, of its pods' nodes alone.
    pub fn new(namespace: Option<String>) -> Self {
        Self {
            namespace,
            world: None,
            took_ms: 0,
            error: None,
            rows: Vec::new(),
            sort: Sort::Node,
            reversed: false,
            selected: None,
            filter: String::new(),
            is_typing: false,
            is_open: false,
            page: 1,
        }
    }

    /// The cluster was read, or could not be: what was known stays on the screen then, and says so.
    pub fn update(&mut self, read: Result<Read, String>) {
        match read {
            Ok(Read { world, took_ms }) => {
                self.rows = rows(&world, self.namespace.as_deref());
                (self.world, self.took_ms, self.error) = (Some(world), took_ms, None);
                self.sorted();
            }
            Err(error) => self.error = Some(error),
        }
    }

    /// When the cluster was read.
    pub fn world(&self) -> Option<&World> {
        self.world.as_deref()
    }

    /// The rows that the filter lets through, in their order.
    pub fn shown(&self) -> Vec<&Row> {
        let wanted = self.filter.to_lowercase();
        let is_wanted = |row: &&Row| {
            wanted.is_empty()
                || row.node.to_lowercase().contains(&wanted)
                || row.models.to_lowercase().contains(&wanted)
                || row.note.to_lowercase().contains(&wanted)
        };
        self.rows.iter().filter(is_wanted).collect()
    }

    /// Which of the shown rows the cursor is on.
    pub fn cursor(&self, shown: &[&Row]) -> usize {
        let at = |name: &String| shown.iter().position(|row| &row.node == name);
        self.selected.as_ref().and_then(at).unwrap_or(0)
    }

    /// The GPUs of the selected node.
    pub fn details(&self) -> Vec<String> {
        let shown = self.shown();
        let Some(row) = shown.get(self.cursor(&shown)) else { return Vec::new() };
        // The row's name is what a terminal may print: a node of the API server has no other.
        self.world.as_ref().and_then(|world| world.node(&row.node)).map(details).unwrap_or_default()
    }

    fn sorted(&mut self) {
        self.rows.sort_by(|one, two| {
            let order = self.sort.compare(one, two);
            if self.reversed { order.reverse() } else { order }
        });
    }

    fn sort_by(&mut self, sort: Sort) {
        self.reversed = self.sort == sort && !self.reversed;
        self.sort = sort;
        self.sorted();
    }

    fn go(&mut self, rows: isize) {
        let shown = self.shown();
        let last = shown.len().saturating_sub(1);
        let to = self.cursor(&shown).saturating_add_signed(rows).min(last);
        self.selected = shown.get(to).map(|row| row.node.clone());
    }

    /// A key was pressed.
    pub fn press(&mut self, key: KeyEvent) -> Flow {
        if key.kind == KeyEventKind::Release {
            return Flow::On;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Flow::Quit,
            _ if self.is_typing => self.type_in(key.code),
            KeyCode::Char('q') => return Flow::Quit,
            KeyCode::Esc if self.is_open => self.is_open = false,
            KeyCode::Esc if !self.filter.is_empty() => self.filter.clear(),
            KeyCode::Esc => return Flow::Quit,
            KeyCode::Enter => self.is_open = !self.is_open,
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Up | KeyCode::Char('k') => self.go(-1),
            KeyCode::Down | KeyCode::Char('j') => self.go(1),
            KeyCode::PageUp => self.go(-self.page_rows()),
            KeyCode::PageDown => self.go(self.page_rows()),
            KeyCode::Home | KeyCode::Char('g') => self.go(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.go(isize::MAX),
            KeyCode::Char(letter) => {
                if let Some((.., sort)) = super::draw::COLUMNS.iter().find(|(_, key, _)| *key == letter) {
                    self.sort_by(*sort);
                }
            }
            _ => {}
        }
        Flow::On
    }

    fn page_rows(&self) -> isize {
        isize::try_from(self.page).unwrap_or(isize::MAX)
    }

    fn type_in(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            // No name is longer.
            KeyCode::Char(letter) if self.filter.len() < 253 => self.filter.push(letter),
            _ => {}
        }
    }
}
