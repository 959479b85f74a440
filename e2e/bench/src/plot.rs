//! The results as one picture: bars, each panel with its own unit, and a line where the aim is. Plain SVG, nothing
//! fetched; light or dark as its viewer is.

use std::fmt::Write as _;

const WIDTH: f64 = 775.0;
const LEFT: f64 = 165.0;
const RIGHT: f64 = 110.0;
const BAR: f64 = 20.0;
const STEP: f64 = 28.0;
const TITLE: f64 = 44.0;

const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-weight:600;font-size:15px}\
    .note{fill:#57606a;font-size:12px}.page{fill:#fff}.ours{fill:#0969da}.other{fill:#8c959f}\
    .aim{stroke:#bc4c00;stroke-width:2;stroke-dasharray:4 3}.axis{stroke:#d0d7de}\
    @media(prefers-color-scheme:dark){text{fill:#e6edf3}.note{fill:#9198a1}.page{fill:#0d1117}\
    .ours{fill:#4493f8}.other{fill:#656c76}.aim{stroke:#f0883e}.axis{stroke:#3d444d}}";

pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) value: f64,
    /// Ours, or what ours is measured against.
    pub(crate) ours: bool,
    pub(crate) aim: Option<f64>,
}

/// Bars that share a unit.
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    pub(crate) bars: Vec<Bar>,
    pub(crate) decimals: usize,
}

/// The whole picture, with a line of text below it.
pub(crate) fn svg(panels: &[Panel], caption: &str) -> String {
    let mut body = String::new();
    let mut top = 8.0;
    for panel in panels {
        top = draw_panel(&mut body, panel, top);
    }
    let height = top + 36.0;
    let _ = writeln!(body, r#"<text class="note" x="16" y="{:.0}">{}</text>"#, top + 20.0, escaped(caption));
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">
<title>The task server, measured</title>
<style>{STYLE}</style>
<rect class="page" width="100%" height="100%"/>
{body}</svg>
"#
    )
}

fn draw_panel(body: &mut String, panel: &Panel, top: f64) -> f64 {
    let Panel { title, bars, decimals } = panel;
    let largest = bars.iter().flat_map(|bar| [Some(bar.value), bar.aim]).flatten().fold(0.0, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / largest.max(f64::MIN_POSITIVE);
    let _ = writeln!(body, r#"<text class="title" x="16" y="{:.1}">{}</text>"#, top + 28.0, escaped(title));
    let first = top + TITLE;
    for (n, bar) in bars.iter().enumerate() {
        let y = first + n as f64 * STEP;
        let Bar { name, value, ours, aim } = bar;
        let class = if *ours { "ours" } else { "other" };
        let width = (value * scale).max(1.0);
        let text = y + 15.0;
        let _ = writeln!(
            body,
            r#"<text x="{:.1}" y="{text:.1}" text-anchor="end">{}</text><rect class="{class}" x="{LEFT}" y="{y:.1}" width="{width:.1}" height="{BAR}" rx="2"/>"#,
            LEFT - 8.0,
            escaped(name)
        );
        if let Some(aim) = aim {
            let x = LEFT + aim * scale;
            let _ = writeln!(
                body,
                r#"<line class="aim" x1="{x:.1}" x2="{x:.1}" y1="{:.1}" y2="{:.1}"/>"#,
                y - 3.0,
                y + BAR + 3.0
            );
        }
        let end = width.max(aim.map_or(0.0, |aim| aim * scale));
        let _ = writeln!(
            body,
            r#"<text x="{:.1}" y="{text:.1}">{}</text>"#,
            LEFT + end + 8.0,
            grouped(*value, *decimals)
        );
    }
    let bottom = first + bars.len() as f64 * STEP;
    let _ = writeln!(
        body,
        r#"<line class="axis" x1="{LEFT}" x2="{LEFT}" y1="{:.1}" y2="{:.1}"/>"#,
        first - 4.0,
        bottom - 4.0
    );
    bottom
}

/// 12345.6 as 12,346 or 12,345.60.
fn grouped(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (whole, rest) =
        text.split_once('.').map_or((text.as_str(), String::new()), |(w, r)| (w, format!(".{r}")));
    let mut out = String::new();
    for (n, digit) in whole.chars().enumerate() {
        if n > 0 && (whole.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + &rest
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(grouped(1_234_567.8, 0), "1,234,568");
        assert_eq!((grouped(123.0, 0), grouped(1000.0, 2)), ("123".to_owned(), "1,000.00".to_owned()));
    }

    #[test]
    fn a_bar_is_as_long_as_its_value_and_its_aim_stands_where_it_is() {
        let bar = |value, aim| Bar { name: "a<b".to_owned(), value, ours: true, aim };
        let panel = Panel { title: "t", bars: vec![bar(50.0, Some(100.0)), bar(25.0, None)], decimals: 0 };
        let svg = svg(&[panel], "c");
        assert!(svg.contains(r#"width="250.0""#) && svg.contains(r#"width="125.0""#), "{svg}");
        assert!(svg.contains(r#"x1="665.0""#) && svg.contains("a&lt;b"), "{svg}");
    }
}
