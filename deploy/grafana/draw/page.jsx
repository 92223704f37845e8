// Draws a dashboard by Grafana's own components, with what a Prometheus behind /api answers. `window.draw` says of each panel whether it had
// data, and what went wrong.
import {
  createTheme,
  dateTime,
  getDisplayValueAlignmentFactors,
  getFieldDisplayValues,
  renderMarkdown,
  ThemeContext,
} from '@grafana/data';
import { BarGauge, BigValue, ErrorBoundaryAlert, GlobalStyles, PanelChrome, TimeSeries, VizRepeater } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import { createRoot } from 'react-dom/client';

import { configOf, context, framesOf } from './frames.js';

const CELL = 30;
const GAP = 8;
const WIDTH = 1600;
const theme = createTheme({ colors: { mode: 'dark' } });
const column = (WIDTH - GAP) / 24;
const root = createRoot(document.getElementById('root'));

window.draw = async (dashboard, span) => {
  const panels = await Promise.all(dashboard.panels.map((panel) => prepared(panel, span)));
  root.render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <Board key={dashboard.uid} dashboard={dashboard} panels={panels} span={span} />
    </ThemeContext.Provider>,
  );
  return panels
    .filter(({ panel }) => panel.targets)
    .map(({ panel, frames, error }) => ({
      title: panel.title,
      excused: Boolean(panel.fieldConfig.defaults.noValue),
      error,
      empty: !hasValues(frames),
    }));
};

async function prepared(panel, span) {
  try {
    return { panel, frames: await framesOf(panel, (target) => answer(target, span), theme) };
  } catch (error) {
    return { panel, frames: [], error: String(error) };
  }
}

async function answer(target, { start, end, step, rate }) {
  const query = target.expr
    .replaceAll('$__rate_interval', `${rate}s`)
    .replaceAll('$__range', `${end - start}s`)
    .replace(/\$\w+/g, '.*');
  target.stepMs = step * 1000;
  const asked = target.instant ? { query, time: end } : { query, start, end, step };
  const response = await fetch(`/api/v1/query${target.instant ? '' : '_range'}`, {
    method: 'POST',
    body: new URLSearchParams(asked),
  });
  const body = await response.json();
  if (body.status !== 'success') {
    throw new Error(`${query}: ${body.error}`);
  }
  return body.data.result;
}

function hasValues(frames) {
  const told = ({ type, values }) => type !== 'time' && values.some((value) => value !== null && value !== '');
  return frames.some((frame) => frame.fields.some(told));
}

function Board({ dashboard, panels, span }) {
  const bottom = Math.max(...panels.map(({ panel: { gridPos } }) => gridPos.y + gridPos.h));
  return (
    <div style={{ width: WIDTH, background: theme.colors.background.canvas, color: theme.colors.text.primary }}>
      <div style={{ padding: '12px 16px 4px', fontSize: 18, fontWeight: 500 }}>{dashboard.title}</div>
      <div style={{ position: 'relative', height: bottom * (CELL + GAP) + GAP }}>
        {panels.map((one) => (
          <Placed key={one.panel.id} {...one} span={span} />
        ))}
      </div>
    </div>
  );
}

function Placed({ panel, frames, error, span }) {
  const { x, y, w, h } = panel.gridPos;
  const width = w * column - GAP;
  const height = h * (CELL + GAP) - GAP;
  const place = { position: 'absolute', left: GAP + x * column, top: GAP + y * (CELL + GAP), width, height };
  if (panel.type === 'row') {
    return <div style={{ ...place, fontSize: 15, fontWeight: 500, lineHeight: `${height}px` }}>{panel.title}</div>;
  }
  return (
    <div style={place}>
      <PanelChrome
        width={width}
        height={height}
        title={panel.title}
        description={panel.description}
        padding={panel.type === 'table' ? 'none' : 'md'}
        statusMessage={error}
      >
        {(innerWidth, innerHeight) => (
          <ErrorBoundaryAlert>
            <Drawn panel={panel} frames={frames} width={innerWidth} height={innerHeight} span={span} />
          </ErrorBoundaryAlert>
        )}
      </PanelChrome>
    </div>
  );
}

function Drawn({ panel, frames, width, height, span }) {
  if (panel.type === 'text') {
    const html = renderMarkdown(panel.options.content);
    return (
      <div className="markdown-html" style={{ width, height, overflow: 'hidden' }} dangerouslySetInnerHTML={{ __html: html }} />
    );
  }
  if (panel.type === 'stat' || panel.type === 'bargauge') {
    return <Reduced panel={panel} frames={frames} width={width} height={height} />;
  }
  if (!hasValues(frames)) {
    // As Grafana's PanelDataErrorView.
    const middle = {
      width,
      height,
      display: 'flex',
      alignItems: 'center',
      justifyContent: 'center',
      color: theme.colors.text.secondary,
    };
    return <div style={middle}>{panel.fieldConfig.defaults.noValue ?? 'No data'}</div>;
  }
  if (panel.type === 'table') {
    return (
      <TableNG
        data={frames[0]}
        width={width}
        height={height}
        initialSortBy={panel.options.sortBy}
        cellHeight={panel.options.cellHeight}
        fieldConfig={configOf(panel)}
        enableVirtualization={false}
      />
    );
  }
  if (panel.type === 'timeseries') {
    const range = { from: dateTime(span.start * 1000), to: dateTime(span.end * 1000), raw: { from: 'now-1h', to: 'now' } };
    return (
      <TimeSeries
        frames={frames}
        width={width}
        height={height}
        legend={panel.options.legend}
        timeRange={range}
        timeZone="utc"
        options={panel.options}
      />
    );
  }
  throw new Error(`no way to draw a panel of type ${panel.type}`);
}

function Reduced({ panel, frames, width, height }) {
  const { options } = panel;
  const fieldConfig = configOf(panel);
  const values = () =>
    getFieldDisplayValues({ ...context(theme), data: frames, fieldConfig, reduceOptions: options.reduceOptions });
  const bars = panel.type === 'bargauge';
  const one = ({ value, width, height, count, alignmentFactors, orientation }) =>
    bars ? (
      <BarGauge
        theme={theme}
        value={value.display}
        width={width}
        height={height}
        field={value.field}
        display={value.view?.getFieldDisplayProcessor(value.colIndex)}
        orientation={orientation}
        displayMode={options.displayMode}
        showUnfilled={options.showUnfilled}
        valueDisplayMode={options.valueMode}
        namePlacement={options.namePlacement}
        alignmentFactors={alignmentFactors}
        itemSpacing={8}
        isOverflow={false}
        text={options.text}
      />
    ) : (
      <BigValue
        theme={theme}
        value={value.display}
        width={width}
        height={height}
        colorMode={options.colorMode}
        graphMode={options.graphMode}
        justifyMode={options.justifyMode}
        textMode={options.textMode}
        alignmentFactors={alignmentFactors}
        count={count}
        text={options.text}
      />
    );
  return (
    <VizRepeater
      getValues={values}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderValue={one}
      width={width}
      height={height}
      source={frames}
      orientation={options.orientation}
      renderCounter={0}
      itemSpacing={bars ? 8 : 3}
      autoGrid={!bars}
      minVizWidth={bars ? 8 : undefined}
      minVizHeight={bars ? 16 : undefined}
      maxVizHeight={bars ? 300 : undefined}
    />
  );
}
