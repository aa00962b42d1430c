//! Plots as SVG.

use std::fmt::Write as _;
use std::path::Path;

use polybus::BoxError;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 200.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const COLOURS: [&str; 8] = [
    "#1f77b4", "#aec7e8", "#d62728", "#ff9896", "#2ca02c", "#98df8a", "#9467bd", "#c5b0d5",
];

/// Lines over two logarithmic axes.
#[derive(Debug)]
pub struct Chart {
    pub title: &'static str,
    pub x: &'static str,
    pub y: &'static str,
    pub lines: Vec<Line>,
}

/// A line and its name.
#[derive(Debug)]
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// The powers of ten that hold all values of an axis, as their exponents.
struct Axis {
    first: f64,
    last: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>) -> Self {
        let (mut first, mut last) = (f64::MAX, f64::MIN);
        for value in values.filter(|value| *value > 0.0) {
            first = first.min(value.log10().floor());
            last = last.max(value.log10().ceil());
        }
        if first > last {
            (first, last) = (0.0, 1.0);
        }
        Self {
            first,
            last: last.max(first + 1.0),
        }
    }

    /// From 0 to 1.
    fn place(&self, value: f64) -> f64 {
        (value.max(f64::MIN_POSITIVE).log10() - self.first) / (self.last - self.first)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let (first, last) = (self.first as i32, self.last as i32);
        (first..=last).map(|exponent| 10f64.powi(exponent))
    }
}

impl Chart {
    /// Writes the chart to a file.
    pub fn write(&self, path: &Path) -> Result<(), BoxError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, self.svg()?)?;
        println!("written: {}", path.display());
        Ok(())
    }

    fn svg(&self) -> Result<String, std::fmt::Error> {
        let points = || self.lines.iter().flat_map(|line| line.points.iter());
        let (x_axis, y_axis) = (
            Axis::over(points().map(|point| point.0)),
            Axis::over(points().map(|point| point.1)),
        );
        let across = |value: f64| LEFT + x_axis.place(value) * (WIDTH - LEFT - RIGHT);
        let up = |value: f64| HEIGHT - BOTTOM - y_axis.place(value) * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        text(&mut svg, LEFT, TOP - 16.0, "start", self.title)?;
        text(
            &mut svg,
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 12.0,
            "middle",
            self.x,
        )?;
        text(&mut svg, 8.0, TOP - 16.0, "start", self.y)?;
        for tick in x_axis.ticks() {
            rule(&mut svg, [across(tick), TOP, across(tick), HEIGHT - BOTTOM])?;
            text(
                &mut svg,
                across(tick),
                HEIGHT - BOTTOM + 18.0,
                "middle",
                &label(tick),
            )?;
        }
        for tick in y_axis.ticks() {
            rule(&mut svg, [LEFT, up(tick), WIDTH - RIGHT, up(tick)])?;
            text(&mut svg, LEFT - 8.0, up(tick) + 4.0, "end", &label(tick))?;
        }
        for (index, line) in self.lines.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let mut path = String::new();
            for (x, y) in &line.points {
                write!(path, "{:.1},{:.1} ", across(*x), up(*y))?;
            }
            writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                path.trim_end()
            )?;
            let height = TOP + 10.0 + 20.0 * index as f64;
            let begin = WIDTH - RIGHT + 16.0;
            writeln!(
                svg,
                "<rect x=\"{begin}\" y=\"{}\" width=\"14\" height=\"4\" fill=\"{colour}\"/>",
                height - 5.0
            )?;
            text(&mut svg, begin + 20.0, height, "start", &line.name)?;
        }
        svg.push_str("</svg>\n");
        Ok(svg)
    }
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) -> std::fmt::Result {
    writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    )
}

fn rule(svg: &mut String, [from_x, from_y, to_x, to_y]: [f64; 4]) -> std::fmt::Result {
    writeln!(
        svg,
        "<line x1=\"{from_x:.1}\" y1=\"{from_y:.1}\" x2=\"{to_x:.1}\" y2=\"{to_y:.1}\" stroke=\"#ddd\"/>"
    )
}

fn label(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{}M", value / 1e6),
        value if value >= 1e3 => format!("{}k", value / 1e3),
        value => format!("{value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_points_lie_within_the_axes() {
        let axis = Axis::over([3.0, 250.0, 1_000.0].into_iter());
        for value in [1.0, 3.0, 250.0, 1_000.0] {
            assert!((0.0..=1.0).contains(&axis.place(value)), "{value}");
        }
        assert_eq!(axis.ticks().collect::<Vec<_>>(), [1.0, 10.0, 100.0, 1000.0]);
    }
}
