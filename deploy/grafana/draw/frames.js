// What a panel's queries bring, in the form in which Grafana's data source for Prometheus would bring it, and then through Grafana's own
// transformations and overrides.
import {
  FieldConfigOptionsRegistry,
  FieldType,
  applyFieldOverrides,
  applyNullInsertThreshold,
  cacheFieldDisplayNames,
  standardTransformers,
  standardTransformersRegistry,
  toDataFrame,
  transformDataFrame,
} from '@grafana/data';
import { firstValueFrom } from 'rxjs';

// The defaults of Grafana's time series panel, where the dashboard says nothing.
const LINES = {
  axisBorderShow: false,
  axisCenteredZero: false,
  axisGridShow: true,
  axisPlacement: 'auto',
  barAlignment: 0,
  drawStyle: 'line',
  fillOpacity: 0,
  gradientMode: 'none',
  hideFrom: { legend: false, tooltip: false, viz: false },
  insertNulls: false,
  lineInterpolation: 'linear',
  lineWidth: 1,
  pointSize: 5,
  scaleDistribution: { type: 'linear' },
  spanNulls: false,
};
const PROPERTIES = ['unit', 'min', 'max', 'decimals', 'displayName', 'noValue', 'thresholds', 'mappings', 'links', 'color'];
const OWN = ['cellOptions', 'width', 'align', ...Object.keys(LINES), 'stacking', 'thresholdsStyle', 'showPoints'];

standardTransformersRegistry.setInit(() =>
  [standardTransformers.mergeTransformer, standardTransformers.organizeFieldsTransformer].map((transformation) => ({
    id: transformation.id,
    name: transformation.name,
    transformation,
  })),
);

const property = (path, isCustom) => ({
  id: isCustom ? `custom.${path}` : path,
  name: path,
  path,
  isCustom,
  process: (value) => value,
  shouldApply: () => true,
});
const registry = new FieldConfigOptionsRegistry(() => [
  ...PROPERTIES.map((path) => property(path, false)),
  ...OWN.map((path) => property(path, true)),
]);

/// The frames of a panel; without any, its queries found nothing.
export async function framesOf(panel, ask, theme) {
  const results = await Promise.all((panel.targets ?? []).map((target) => ask(target)));
  const several = results.length > 1;
  const raw = results.flatMap((result, n) => {
    const target = panel.targets[n];
    return target.format === 'table' ? tableOf(result, target, several) : result.map((one) => seriesOf(one, target));
  });
  const transformed = await firstValueFrom(transformDataFrame(panel.transformations ?? [], raw));
  const frames = applyFieldOverrides({ ...context(theme), data: transformed, fieldConfig: configOf(panel) });
  cacheFieldDisplayNames(frames);
  // A moment that is missing is a gap in the line.
  return panel.type === 'timeseries' ? frames.map((frame) => applyNullInsertThreshold({ frame, refFieldName: 'Time' })) : frames;
}

export function context(theme) {
  return { fieldConfigRegistry: registry, replaceVariables: (text) => text, theme, timeZone: 'utc' };
}

/// As Grafana reads it: JSON has no infinity, so the first step of thresholds has no value.
export function configOf(panel) {
  const config = structuredClone(panel.fieldConfig ?? { defaults: {}, overrides: [] });
  const infinite = (thresholds) => thresholds?.steps.forEach((step) => (step.value ??= -Infinity));
  infinite(config.defaults.thresholds);
  for (const override of config.overrides) {
    override.properties.filter(({ id }) => id === 'thresholds').forEach(({ value }) => infinite(value));
  }
  if (panel.type === 'timeseries') {
    config.defaults.custom = { ...LINES, ...config.defaults.custom };
  }
  return config;
}

function seriesOf(one, target) {
  const points = one.values ?? [one.value];
  const called = target.legendFormat.replace(/{{\s*(\w+)\s*}}/g, (_, label) => one.metric[label] ?? '');
  const time = {
    name: 'Time',
    type: FieldType.time,
    values: points.map(([at]) => at * 1000),
    config: { interval: target.stepMs },
  };
  const values = points.map(([, text]) => numberOf(text));
  const value = { name: 'Value', type: FieldType.number, values, labels: one.metric, config: { displayNameFromDS: called } };
  return toDataFrame({ refId: target.refId, name: called, fields: [time, value] });
}

function tableOf(result, target, several) {
  if (result.length === 0) {
    return [];
  }
  const labels = [...new Set(result.flatMap((one) => Object.keys(one.metric)))].sort();
  const fields = labels.map((label) => ({
    name: label,
    type: FieldType.string,
    values: result.map((one) => one.metric[label] ?? ''),
  }));
  const time = { name: 'Time', type: FieldType.time, values: result.map((one) => one.value[0] * 1000) };
  const name = several ? `Value #${target.refId}` : 'Value';
  const value = { name, type: FieldType.number, values: result.map((one) => numberOf(one.value[1])) };
  return [toDataFrame({ refId: target.refId, fields: [time, ...fields, value] })];
}

/// What is no number, such as the quantile of nothing, is a gap.
function numberOf(text) {
  return text === 'NaN' ? null : Number(text.replace('Inf', 'Infinity'));
}
