//! Tables in light box drawing: headers centred, cells to the right, one blank around them.

/// Draws a table. Rows shorter than the headers are filled with empty cells.
pub fn draw(headers: &[&str], rows: &[Vec<String>]) -> String {
    let headers: Vec<String> = headers.iter().map(|h| h.to_uppercase().replace('_', " ")).collect();
    let cell = |row: &[String], column: usize| row.get(column).map(|c| c.trim().to_owned()).unwrap_or_default();
    let widths: Vec<usize> = (0..headers.len())
        .map(|column| {
            let cells = rows.iter().map(|row| cell(row, column).chars().count());
            cells.chain([headers[column].chars().count()]).max().unwrap_or_default()
        })
        .collect();
    let rule = |left: &str, middle: &str, right: &str| {
        let lines: Vec<String> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
        format!("{left}{}{right}\n", lines.join(middle))
    };
    let line = |cells: Vec<String>| format!("│{}│\n", cells.join("│"));
    let mut text = rule("┌", "┬", "┐");
    text += &line(headers.iter().zip(&widths).map(|(header, width)| format!(" {header:^width$} ")).collect());
    if !rows.is_empty() {
        text += &rule("├", "┼", "┤");
    }
    for row in rows {
        let cells = widths.iter().enumerate().map(|(column, width)| format!(" {:>width$} ", cell(row, column)));
        text += &line(cells.collect());
    }
    text + &rule("└", "┴", "┘")
}

#[cfg(test)]
mod tests {
    #[test]
    fn headers_are_centred_and_cells_stand_right() {
        let table = super::draw(&["id", "peer_addrs"], &[vec!["123456789".into(), "x".into()]]);
        assert_eq!(
            table,
            "┌───────────┬────────────┐\n│    ID     │ PEER ADDRS │\n├───────────┼────────────┤\n│ 123456789 │          x │\n\
             └───────────┴────────────┘\n"
        );
    }

    #[test]
    fn without_rows_there_is_no_line_below_the_headers() {
        assert_eq!(super::draw(&["id"], &[]), "┌────┐\n│ ID │\n└────┘\n");
    }
}
