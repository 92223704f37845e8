//! One self-contained page: tables and plots as SVG, no script, nothing from elsewhere.

use std::fmt::Write;

use crate::report::{Report, table};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 34.0;
const COLOURS: [&str; 6] = ["#1f6feb", "#d1242f", "#2da44e", "#bf8700", "#8250df", "#57606a"];

/// The page of some measurements.
pub(crate) fn page(title: &str, notes: &[String], reports: &[Report]) -> String {
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><style>\
         body{{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1f2328}}\
         pre{{background:#f6f8fa;padding:1rem;overflow-x:auto;font-size:12px}}svg{{max-width:100%;height:auto}}\
         text{{font:11px system-ui,sans-serif;fill:#57606a}}</style><h1>{title}</h1>",
        title = escaped(title)
    );
    let _ = write!(out, "<pre>{}</pre>", escaped(&table(reports)));
    for note in notes {
        let _ = write!(out, "<p>{}</p>", escaped(note));
    }
    let percentiles = |r: &Report| {
        let l = r.latency;
        [(50.0, l.p50), (90.0, l.p90), (99.0, l.p99), (99.9, l.p99_9), (99.99, l.p99_99)]
            .map(|(q, value)| ((100.0_f64 / (100.0 - q)).log10(), value))
            .to_vec()
    };
    let ticks = [(0.301, "50 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"), (4.0, "99.99 %")];
    out += &plot("Latency percentiles (microseconds)", reports, percentiles, &ticks, true);
    let seconds = |value: fn(&crate::report::Point) -> f64| {
        move |r: &Report| r.timeline.iter().enumerate().map(|(s, p)| (s as f64, value(p))).collect::<Vec<_>>()
    };
    out += &plot("Answers a second", reports, seconds(|p| p.answered as f64), &[], false);
    out += &plot("99th percentile, second by second (microseconds)", reports, seconds(|p| p.p99), &[], true);
    out += &plot("Median, second by second (microseconds)", reports, seconds(|p| p.p50), &[], false);
    out += &plot("Errors a second", reports, seconds(|p| p.errors as f64), &[], false);
    out + "</html>\n"
}

fn plot(
    title: &str,
    reports: &[Report],
    series: impl Fn(&Report) -> Vec<(f64, f64)>,
    ticks: &[(f64, &str)],
    logarithmic: bool,
) -> String {
    let all: Vec<_> = reports.iter().map(|r| (r.name.as_str(), series(r))).collect();
    let points = || all.iter().flat_map(|(_, points)| points).filter(|(_, y)| y.is_finite());
    let most_x = points().map(|(x, _)| *x).fold(1.0, f64::max);
    let (least, most) = (
        points().map(|(_, y)| *y).filter(|y| *y > 0.0).fold(f64::INFINITY, f64::min),
        points().map(|(_, y)| *y).fold(1.0, f64::max),
    );
    let floor = if logarithmic && least.is_finite() { least.log10().floor() } else { 0.0 };
    let ceiling = if logarithmic { most.log10().ceil().max(floor + 1.0) } else { most * 1.08 };
    let height = |y: f64| if logarithmic { y.max(1e-3).log10().max(floor) } else { y };
    let at = |x: f64, y: f64| {
        let right = LEFT + x / most_x * (WIDTH - LEFT - 10.0);
        (right, HEIGHT - BOTTOM - (y - floor) / (ceiling - floor) * (HEIGHT - BOTTOM - 12.0))
    };
    let mut out = format!(
        "<h2>{}</h2><svg viewBox=\"0 0 {WIDTH} {}\">",
        escaped(title),
        HEIGHT + 18.0 * all.len() as f64
    );
    let steps: Vec<(f64, String)> = if logarithmic {
        (floor as i32..=ceiling as i32).map(|p| (f64::from(p), format!("{}", 10_f64.powi(p)))).collect()
    } else {
        (0..=4).map(|n| ceiling * f64::from(n) / 4.0).map(|y| (y, format!("{y:.0}"))).collect()
    };
    for (y, label) in steps {
        let (_, top) = at(0.0, y);
        let _ = write!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{top:.1}\" y2=\"{top:.1}\" stroke=\"#d0d7de\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            WIDTH - 10.0,
            LEFT - 6.0,
            top + 4.0
        );
    }
    let seconds: Vec<(f64, String)> =
        (0..=4).map(|n| most_x * f64::from(n) / 4.0).map(|x| (x, format!("{x:.0} s"))).collect();
    let named: Vec<_> = ticks.iter().map(|(x, label)| (*x, (*label).to_owned())).collect();
    for (x, label) in if ticks.is_empty() { seconds } else { named } {
        let (right, _) = at(x, floor);
        let _ = write!(
            out,
            "<text x=\"{right:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            HEIGHT - BOTTOM + 16.0
        );
    }
    for (index, (name, points)) in all.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let line: Vec<_> = points
            .iter()
            .filter(|(_, y)| y.is_finite())
            .map(|(x, y)| at(*x, height(*y)))
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let _ = write!(
            out,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\" points=\"{}\"/><text x=\"{LEFT}\" y=\"{}\" style=\"fill:{colour}\">{}</text>",
            line.join(" "),
            HEIGHT + 12.0 + 18.0 * index as f64,
            escaped(name)
        );
    }
    out + "</svg>"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{drive::Pace, record::Record, report::tests::report};

    /// Where the points of a plot lie; heights count from the top.
    fn points(page: &str, title: &str) -> Vec<(f64, f64)> {
        let plot = page.split("<h2>").find(|part| part.starts_with(title)).unwrap();
        let line = plot.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        let point = |text: &str| text.split_once(',').map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()));
        line.split(' ').map(|text| point(text).unwrap()).collect()
    }

    #[test]
    fn each_plot_shows_what_its_title_says() {
        let mut record = Record::new();
        // Each second more answers, a longer median and a shorter tail; errors in the second one.
        for (second, count, median, tail) in [(0, 100, 10, 9_000), (1, 200, 200, 800), (2, 300, 400, 500)] {
            let at = Duration::from_secs(second);
            (0..count).for_each(|_| record.answer(at, Duration::from_micros(median)));
            (0..count / 20).for_each(|_| record.answer(at, Duration::from_micros(tail)));
        }
        (0..7).for_each(|_| record.error(Duration::from_secs(1), "grpc-status 8"));
        let page = page("t", &[], &[report(Pace::Closed, record, None)]);
        let heights = |title| {
            let [first, second, third] = points(&page, title)[..] else { panic!("{title}: {page}") };
            assert!(first.0 < second.0 && second.0 < third.0, "a second after the other: {page}");
            [first.1, second.1, third.1]
        };
        let rises = |[a, b, c]: [f64; 3]| a > b && b > c;
        assert!(rises(heights("Answers a second")) && rises(heights("Median, second by second")));
        let [a, b, c] = heights("99th percentile, second by second");
        assert!(a < b && b < c);
        let [none, seven, none_again] = heights("Errors a second");
        assert!(seven < none && none - none_again == 0.0);
        let percentiles = points(&page, "Latency percentiles");
        assert!(percentiles.len() == 5 && percentiles.is_sorted_by(|a, b| a.0 < b.0 && a.1 >= b.1), "{page}");
    }
}
