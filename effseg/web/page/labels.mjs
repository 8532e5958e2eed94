// From what an artifact returns to the label of every pixel.

/** The labels of a result: of `labels` output as they are, of `logits` by bilinear resizing and the largest class.
 *  A pixel between four corners of one class has that class; only the others are mixed. */
export function labelsOf(values, dims, height, width) {
  const labels = new Uint8Array(height * width);
  if (dims.length === 3) {
    for (let i = 0; i < labels.length; i++) labels[i] = Number(values[i]);
    return labels;
  }
  const [, classes, h, w] = dims, area = h * w, best = new Uint8Array(area);
  for (let i = 0; i < area; i++) {
    let largest = values[i];
    for (let c = 1; c < classes; c++) if (values[c * area + i] > largest) { largest = values[c * area + i]; best[i] = c; }
  }
  const rows = corners(h, height), columns = corners(w, width);
  for (let y = 0, p = 0; y < height; y++) for (let x = 0; x < width; x++, p++) {
    const a = rows.before[y] * w + columns.before[x], b = rows.before[y] * w + columns.after[x];
    const c = rows.after[y] * w + columns.before[x], d = rows.after[y] * w + columns.after[x];
    if (best[a] === best[b] && best[a] === best[c] && best[a] === best[d]) { labels[p] = best[a]; continue; }
    const v = rows.weight[y], u = columns.weight[x];
    let largest = -Infinity;
    for (let k = 0, at = 0; k < classes; k++, at += area) {
      const value = (1 - v) * ((1 - u) * values[at + a] + u * values[at + b]) + v * ((1 - u) * values[at + c] + u * values[at + d]);
      if (value > largest) { largest = value; labels[p] = k; }
    }
  }
  return labels;
}

/** For each target pixel: the source pixels before and after it, and the weight of the latter (align_corners=False). */
function corners(source, target) {
  const before = new Int32Array(target), after = new Int32Array(target), weight = new Float32Array(target);
  for (let i = 0; i < target; i++) {
    const position = Math.max((i + .5) * source / target - .5, 0);
    before[i] = Math.min(Math.floor(position), source - 1);
    after[i] = Math.min(before[i] + 1, source - 1);
    weight[i] = position - before[i];
  }
  return {before, after, weight};
}
