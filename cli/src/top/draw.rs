//! The screen: a line of sums, the nodes, the GPUs of one of them, and the keys. Only what is seen is drawn.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::rows::{Row, Sort};
use super::view::View;
use crate::describe;
use crate::page::printable;

/// The columns that rows can be sorted by: head, key, and by what.
pub const COLUMNS: [(&str, char, Sort); 6] = [
    ("NODE", 'n', Sort::Node),
    ("IN USE", 'u', Sort::InUse),
    ("FREE", 'f', Sort::Free),
    ("STRANDED", 's', Sort::Stranded),
    ("BUSY", 'b', Sort::Busy),
    ("UNHEALTHY", 'h', Sort::Unhealthy),
];

/// How wide a number's column is.
const NUMBER: usize = 10;
/// The widest that names of nodes are shown.
const NAME_MAX: usize = 40;

/// Whether colours are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colours(pub bool);

impl Colours {
    fn of(self, colour: Color) -> Style {
        if self.0 { Style::new().fg(colour) } else { Style::new() }
    }
}

/// Draws everything.
pub fn draw(view: &mut View, colours: Colours, frame: &mut Frame<'_>) {
    let details = if view.is_open { view.details() } else { Vec::new() };
    let height = frame.area().height;
    // The node's GPUs have at most half of the screen.
    let below = u16::try_from(details.len()).unwrap_or(u16::MAX).min(height / 2);
    let [head, table, pane, keys] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(1),
        Constraint::Length(below),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    view.page = usize::from(table.height).saturating_sub(1).max(1);
    frame.render_widget(Paragraph::new(sums(view, colours)), head);
    nodes(view, colours, frame, table);
    let lines: Vec<Line<'_>> = details.into_iter().take(usize::from(below)).map(Line::from).collect();
    frame.render_widget(Paragraph::new(lines), pane);
    frame.render_widget(Paragraph::new(foot(view)), keys);
}

fn sums<'a>(view: &View, colours: Colours) -> Vec<Line<'a>> {
    let shown = view.shown();
    let sum = |at: usize| shown.iter().filter_map(|row| Some(row.usage?[at])).sum::<u64>();
    let gpus: u64 = shown.iter().map(|row| u64::from(row.gpus)).sum();
    let pods: usize = shown.iter().map(|row| row.pods).sum();
    let unknown = shown.iter().filter(|row| row.usage.is_none()).count();
    let what = format!(
        "{}, {gpus} GPUs: {} in use by {}, {} free, {} stranded; {} not known",
        describe::count(shown.len(), "node"),
        describe::gpus(sum(0)),
        describe::count(pods, "pod"),
        describe::gpus(sum(1)),
        describe::gpus(sum(2)),
        describe::count(unknown, "node"),
    );
    let state = match (&view.error, view.world()) {
        (Some(error), _) => Span::styled(printable(error), colours.of(Color::Red)),
        (None, Some(world)) => Span::raw(format!("read {} in {} ms", world.now, view.took_ms)),
        (None, None) => Span::raw("reading the cluster …"),
    };
    vec![Line::styled(what, Modifier::BOLD), Line::from(state)]
}

fn nodes(view: &View, colours: Colours, frame: &mut Frame<'_>, area: Rect) {
    let shown = view.shown();
    let cursor = view.cursor(&shown);
    let width = shown.iter().map(|row| row.node.chars().count()).max().unwrap_or(0).clamp(4, NAME_MAX);
    let mut lines = vec![heads(view.sort, width)];
    let rows = usize::from(area.height).saturating_sub(1);
    // The cursor stays where it is seen.
    let first = (cursor + 1).saturating_sub(rows);
    for (at, row) in shown.iter().enumerate().skip(first).take(rows) {
        let line = node(row, width, colours);
        lines.push(if at == cursor { line.style(Modifier::REVERSED) } else { line });
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn heads<'a>(sort: Sort, width: usize) -> Line<'a> {
    let mut line = Line::default();
    for (head, _, by) in COLUMNS {
        let head = if by == sort { format!("{head}*") } else { head.to_owned() };
        line.push_span(match by {
            Sort::Node => format!("{head:<width$}  {:>4}", "GPUS"),
            _ => format!("{head:>NUMBER$}"),
        });
    }
    line.push_span(format!("{:>6}  MODEL", "PODS"));
    line.style(Modifier::BOLD)
}

fn node<'a>(row: &Row, width: usize, colours: Colours) -> Line<'a> {
    let name: String = row.node.chars().take(width).collect();
    let amount = |at: usize| row.usage.map_or_else(|| "-".to_owned(), |usage| describe::gpus(usage[at]));
    let number = |text: String| format!("{text:>NUMBER$}");
    let stranded = row.usage.is_some_and(|usage| usage[2] > 0);
    let warn = |bad: bool, colour: Color| if bad { colours.of(colour) } else { Style::new() };
    let busy = row.busy.map_or_else(|| "-".to_owned(), |percent| format!("{percent} %"));
    let ill = row.unhealthy > 0;
    let rest = if row.note.is_empty() { row.models.clone() } else { format!("{}  {}", row.models, row.note) };
    Line::from(vec![
        Span::raw(format!("{name:<width$}  {:>4}", row.gpus)),
        Span::raw(number(amount(0))),
        Span::raw(number(amount(1))),
        Span::styled(number(amount(2)), warn(stranded, Color::Yellow)),
        Span::raw(number(busy)),
        Span::styled(number(row.unhealthy.to_string()), warn(ill, Color::Red)),
        Span::raw(format!("{:>6}  ", row.pods)),
        Span::styled(rest, warn(!row.note.is_empty(), Color::Yellow)),
    ])
}

fn foot<'a>(view: &View) -> Line<'a> {
    if view.is_typing || !view.filter.is_empty() {
        let cursor = if view.is_typing { "_" } else { "   Esc all" };
        return Line::from(format!("/{}{cursor}", printable(&view.filter)));
    }
    let sorts: Vec<String> =
        COLUMNS.iter().map(|(head, key, _)| format!("{key} {}", head.to_lowercase())).collect();
    Line::from(format!("sort: {}   / filter   Enter GPUs   q quit", sorts.join("  ")))
}
