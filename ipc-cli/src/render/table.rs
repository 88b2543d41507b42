//! Tables without lines: a heading, aligned columns, two spaces between them.

use comfy_table::{Cell, CellAlignment, ContentArrangement};

use super::Palette;

/// A column: its heading and which side it is aligned to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Column {
    /// Text.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

impl Column {
    fn heading(self) -> &'static str {
        match self {
            Column::Left(heading) | Column::Right(heading) => heading,
        }
    }

    fn alignment(self) -> CellAlignment {
        match self {
            Column::Left(_) => CellAlignment::Left,
            Column::Right(_) => CellAlignment::Right,
        }
    }
}

/// Rows under headings.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these columns.
    pub(crate) fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; missing cells are empty.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether there is no row.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as lines, each ended. With a `width` in columns long cells are wrapped to fit it.
    pub(crate) fn render(&self, palette: Palette, width: Option<u16>) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        match width {
            Some(width) => {
                table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
            }
            None => {
                table.set_content_arrangement(ContentArrangement::Disabled);
            }
        }
        table.set_header(self.columns.iter().map(|column| aligned(column.heading(), *column)));
        for row in &self.rows {
            table.add_row(row.iter().zip(&self.columns).map(|(cell, column)| aligned(cell, *column)));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let mut text = String::new();
        for (number, line) in table.lines().enumerate() {
            let line = line.trim_end();
            let line = if number == 0 { palette.quiet(line) } else { line.to_owned() };
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

fn aligned(text: &str, column: Column) -> Cell {
    Cell::new(text).set_alignment(column.alignment())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Table {
        let mut table = Table::new(&[Column::Left("SERVICE"), Column::Right("CALLS"), Column::Left("OWNER")]);
        table.row(["demo.title".to_owned(), "12".to_owned(), "python3 (pid 7)".to_owned()]);
        table.row(["a".to_owned(), "1,000".to_owned(), String::new()]);
        table
    }

    #[test]
    fn columns_are_aligned_and_lines_end_with_their_text() {
        assert_eq!(
            example().render(Palette::new(false), None),
            "SERVICE     CALLS  OWNER\n\
             demo.title     12  python3 (pid 7)\n\
             a           1,000\n"
        );
    }

    #[test]
    fn a_narrow_terminal_wraps_cells_and_keeps_columns() {
        let text = example().render(Palette::new(false), Some(28));
        assert!(text.lines().all(|line| line.chars().count() <= 28), "{text}");
        assert!(text.lines().count() > 3, "{text}");
    }
}
