"""What the dashboards are made of: a few kinds of panels, over Grafana's own typed builders. None is made without a meaning, a unit and
thresholds; and each looks at what the variables chose."""

from dataclasses import dataclass

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table as tables, text as texts, timeseries
from grafana_foundation_sdk.models import common as models
from grafana_foundation_sdk.models import dashboard as dashboards
from grafana_foundation_sdk.models import prometheus as queries
from grafana_foundation_sdk.models import text as text_models

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
DOCUMENTS = "https://github.com/jeton/jeton/blob/main/docs/"
RUNBOOK, METRICS = DOCUMENTS + "runbook.md", DOCUMENTS + "metrics.md"
# What `{here}` and `{at}` stand for in expressions: the brokers, and the authorities, that the variables chose.
HERE = 'job=~"$job", instance=~"$instance"'
AT = HERE + ', jeton_authority=~"$authority"'
GREEN, ORANGE, RED, NEUTRAL = "green", "orange", "red", "text"


@dataclass(frozen=True)
class Ask:
    """A query. What it is called: a text with `{{label}}`, or in a table the heading of its values."""

    expression: str
    name: str = ""


@dataclass(frozen=True)
class Column:
    """How a table shows one of its columns."""

    heading: str
    unit: str = "none"
    steps: tuple = ()
    link: tuple = ()
    width: int = 0


def promql(expression):
    for short, long in (("{here", "{" + HERE), ("{at", "{" + AT), ("[rate]", "[$__rate_interval]")):
        expression = expression.replace(short, long)
    return " ".join(expression.split())


def share(some, whole, by=""):
    """The part of one rate in another; nothing where the other stands still, as zero of zero says nothing."""
    by = f" by ({by})" if by else ""
    some, whole = (f"sum{by} (rate({series}[rate]))" for series in (some, whole))
    return f"({some} or 0 * {whole}) / ({whole} > 0)"


def seen(counter, by, where="{here}"):
    """Rates by labels, of those combinations alone that were counted in this time: of many that could be, few are."""
    return f"sum by ({by}) (rate({counter}{where}[rate])) and sum by ({by}) (increase({counter}{where}[$__range])) > 0"


def held(gauge, by, where="{here}"):
    """Sums by labels, of those combinations alone that were not zero all this time."""
    return f"sum by ({by}) ({gauge}{where}) and sum by ({by}) (max_over_time({gauge}{where}[$__range])) > 0"


def quantile(part, histogram, by="", where="{here}"):
    by = f"le, {by}" if by else "le"
    return f"histogram_quantile({part}, sum by ({by}) (rate({histogram}_bucket{where}[rate])))"


def quantiles(histogram, where="{here}", parts=(("0.5", "p50"), ("0.99", "p99"), ("0.999", "p99.9"))):
    return [Ask(quantile(part, histogram, where=where), name) for part, name in parts]


def high(orange, red=None):
    """Thresholds of what is bad when it is high."""
    return ((None, GREEN), (orange, ORANGE if red is not None else RED)) + (((red, RED),) if red is not None else ())


def low(red, orange=None):
    """Thresholds of what is bad when it is low."""
    return ((None, RED), (red, ORANGE), (orange, GREEN)) if orange is not None else ((None, RED), (red, GREEN))


# Of what is neither good nor bad by itself.
PLAIN = ((None, NEUTRAL),)
# The thresholds of the alerts of deploy/prometheus.
STARVATION, STARVATION_MINUTES = low(900, 1800), low(15, 30)
EXPIRY = low(2, 14)
# Minutes and days on an axis are round; seconds that Grafana turns into them are not.
MINUTES, DAYS, DAY = "suffix:min", "suffix:days", 86_400
# Where a series is named by one of these labels, or so, its colour has a meaning.
COLOURS = {
    "{{jeton_lookup_result}}": {"fresh": GREEN, "stale": ORANGE, "miss": "blue", "denied": "purple"},
    "{{jeton_slot_state}}": {"fresh": GREEN, "stale": ORANGE, "expired": RED, "empty": "#6e7079"},
    "{{jeton_refresh_outcome}}": {
        "issued": GREEN, "transient": ORANGE, "throttled": "yellow", "permanent": RED, "credential": "dark-red", "denied": "purple",
        "held": "blue", "over_budget": "light-blue",
    },
    "{{jeton_refresh_cause}}": {"plan": GREEN, "caller": "blue"},
    "{{jeton_authority_status_class}}": {"2xx": GREEN, "3xx": "blue", "4xx": ORANGE, "5xx": RED, "none": "purple"},
    "{{jeton_assertion_source}}": {"pool": GREEN, "signed": ORANGE},
    "p50": {"p50": GREEN}, "p95": {"p95": "yellow"}, "p99": {"p99": ORANGE}, "p99.9": {"p99.9": RED},
}


def number(title, meaning, unit, steps, *asks, none=None, words=None, width=3, height=4, decimals=None):
    """The present value, large, coloured by the thresholds."""
    panel = _panel(stat.Panel(), title, meaning, width, height, asks, instant=True)
    panel.unit(unit).thresholds(_thresholds(steps)).color_scheme(_color(dashboards.FieldColorModeId.THRESHOLDS))
    panel.reduce_options(_last()).graph_mode(models.BigValueGraphMode.NONE).color_mode(models.BigValueColorMode.VALUE)
    _optional(panel, none, decimals)
    mappings = []
    if words:
        mappings.append(dashboards.ValueMap(options={key: dashboards.ValueMappingResult(text=word) for key, word in words.items()}))
    if none is not None:
        mappings.append(_nothing(none, GREEN if steps != PLAIN else NEUTRAL))
    if mappings:
        panel.mappings(mappings)
    return panel


def bars(title, meaning, unit, steps, *asks, none=None, width=6, height=8, decimals=None):
    """Present values beside each other."""
    panel = _panel(bargauge.Panel(), title, meaning, width, height, asks, instant=True)
    panel.unit(unit).min(0).thresholds(_thresholds(steps)).color_scheme(_color(dashboards.FieldColorModeId.THRESHOLDS))
    panel.reduce_options(_last()).orientation(models.VizOrientation.HORIZONTAL).show_unfilled(True)
    panel.display_mode(models.BarGaugeDisplayMode.BASIC).value_mode(models.BarGaugeValueMode.TEXT)
    panel.name_placement(models.BarGaugeNamePlacement.LEFT).sizing(models.BarGaugeSizing.AUTO)
    panel.text(common.VizTextDisplayOptions().title_size(13).value_size(16))
    _optional(panel, none, decimals)
    return panel


def lines(title, meaning, unit, steps, *asks, none=None, width=8, height=8, log=False, stack=False, most=None, decimals=None):
    """How it went. Thresholds are dashed lines."""
    panel = _panel(timeseries.Panel(), title, meaning, width, height, asks, instant=False)
    panel.unit(unit).thresholds(_thresholds(steps)).color_scheme(_color(dashboards.FieldColorModeId.PALETTE_CLASSIC))
    style = models.GraphThresholdsStyleMode.DASHED if len(steps) > 1 else models.GraphThresholdsStyleMode.OFF
    panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(style))
    panel.line_width(1).fill_opacity(25 if stack else 8).show_points(models.VisibilityMode.NEVER)
    panel.span_nulls(False)
    legend = common.VizLegendOptions().display_mode(models.LegendDisplayMode.LIST).placement(models.LegendPlacement.BOTTOM)
    panel.legend(legend.show_legend(True).calcs([]))
    panel.tooltip(common.VizTooltipOptions().mode(models.TooltipDisplayMode.MULTI).sort(models.SortOrder.DESCENDING))
    _coloured(panel, asks)
    if log:
        panel.scale_distribution(common.ScaleDistributionConfig().type(models.ScaleDistribution.LOG).log(10))
    else:
        panel.min(0)
    if stack:
        panel.stacking(common.StackingConfig().mode(models.StackingMode.NORMAL).group("A"))
    if most is not None:
        panel.max(most)
    _optional(panel, none, decimals)
    return panel


def table(title, meaning, keys, *asks, columns=(), none=None, sort=None, descending=False, width=12, height=8):
    """A row for each combination of the labels that `keys` names; a column for each label, and for each query under its name."""
    panel = _panel(tables.Panel(), title, meaning, width, height, asks, instant=True)
    values = {f"Value #{_letter(n)}" if len(asks) > 1 else "Value": ask.name for n, ask in enumerate(asks) if ask.name}
    names = {**keys, **values}
    drop = {"Time": True, **{f"Value #{_letter(n)}" if len(asks) > 1 else "Value": True for n, ask in enumerate(asks) if not ask.name}}
    order = {name: index for index, name in enumerate(names)}
    panel.with_transformation(dashboards.DataTransformerConfig(id_val="merge", options={}))
    organize = {"excludeByName": drop, "renameByName": names, "indexByName": order}
    panel.with_transformation(dashboards.DataTransformerConfig(id_val="organize", options=organize))
    panel.unit("none").thresholds(_thresholds(PLAIN)).color_scheme(_color(dashboards.FieldColorModeId.THRESHOLDS))
    named = {column.heading: column for column in columns}
    for heading in names.values():
        panel.override_by_name(heading, _properties(named.pop(heading, None) or Column(heading)))
    assert not named, f"{title} has no such columns: {list(named)}"
    if sort:
        panel.sort_by([common.TableSortByFieldState().display_name(sort).desc(descending)])
    panel.show_header(True).cell_height(models.TableCellHeight.SM)
    _optional(panel, none, None)
    return panel


def words(title, meaning, markdown, width=8, height=8):
    panel = _panel(texts.Panel(), title, meaning, width, height, (), instant=False)
    return panel.mode(text_models.TextMode.MARKDOWN).content(markdown)


def _panel(panel, title, meaning, width, height, asks, instant):
    panel.title(title).description(" ".join(meaning.split())).span(width).height(height)
    if asks:
        panel.datasource(SOURCE)
    for n, ask in enumerate(asks):
        query = prometheus.Dataquery().datasource(SOURCE).ref_id(_letter(n)).expr(promql(ask.expression))
        query.editor_mode(queries.QueryEditorMode.CODE)
        if isinstance(panel, tables.Panel):
            query.format(queries.PromQueryFormat.TABLE)
        else:
            query.format(queries.PromQueryFormat.TIME_SERIES).legend_format(ask.name or title)
        panel.with_target(query.instant() if instant else query.range())
    return panel


def _letter(n):
    return chr(ord("A") + n)


def _thresholds(steps):
    listed = [dashboards.Threshold(value=value, color=color) for value, color in steps]
    return dashboard.ThresholdsConfig().mode(dashboards.ThresholdsMode.ABSOLUTE).steps(listed)


def _nothing(text, colour):
    """What stands where there is no value; by itself its colour would be that of the lowest step."""
    result = dashboards.ValueMappingResult(text=text, color=colour)
    return dashboards.SpecialValueMap(dashboards.DashboardSpecialValueMapOptions(match=dashboards.SpecialValueMatch.NULL, result=result))


def _color(mode):
    return dashboard.FieldColor().mode(mode)


def _coloured(panel, asks):
    """By the meaning, where a series is named by a value that has one; else Grafana's palette goes."""
    colours = {value: colour for ask in asks for value, colour in COLOURS.get(ask.name, {}).items()}
    for value, colour in colours.items():
        panel.override_by_name(value, [dashboards.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": colour})])


def _last():
    return common.ReduceDataOptions().values(False).calcs(["lastNotNull"]).fields("")


def _optional(panel, none, decimals):
    if none is not None:
        panel.no_value(none)
    if decimals is not None:
        panel.decimals(decimals)


def _properties(column):
    found = [dashboards.DynamicConfigValue(id_val="unit", value=column.unit), dashboards.DynamicConfigValue(id_val="noValue", value="–")]
    if column.steps:
        found.append(dashboards.DynamicConfigValue(id_val="thresholds", value=_thresholds(column.steps).build()))
        found.append(dashboards.DynamicConfigValue(id_val="mappings", value=[_nothing("–", NEUTRAL)]))
        found.append(dashboards.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"}))
    if column.link:
        title, url = column.link
        found.append(dashboards.DynamicConfigValue(id_val="links", value=[{"title": title, "url": url}]))
    if column.width:
        found.append(dashboards.DynamicConfigValue(id_val="custom.width", value=column.width))
    return found
