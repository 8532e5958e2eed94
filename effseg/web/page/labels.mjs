// The fit: from a photo to its part of the artifact's image, and from what that returns to the label of every pixel.

/** [height, width] of the photo in the upper left corner of the image; by letterbox as well where the fit is windows,
 *  which a camera cannot wait for. */
export function contentOf(spec, height, width) {
  if (spec.fit === 'stretch') return [spec.height, spec.width];
  const scale = Math.min(spec.height / height, spec.width / width);
  const side = (length, most) => Math.min(Math.max(Math.floor(length * scale + .5), 1), most);
  return [side(height, spec.height), side(width, spec.width)];
}

/** The labels of `size`, [height, width], from the part `content` of a result: of `labels` the nearest, of `logits` the
 *  largest class after bilinear resizing. A pixel between four corners of one class has it; only the others are mixed. */
export function labelsOf(values, dims, spec, content, size) {
  const [height, width] = size, labels = new Uint8Array(height * width);
  if (dims.length === 3) return nearestOf(values, spec, content, size, labels);
  const [, classes, h, w] = dims, area = h * w, best = new Uint8Array(area);
  for (let i = 0; i < area; i++) {
    let largest = values[i];
    for (let c = 1; c < classes; c++) if (values[c * area + i] > largest) { largest = values[c * area + i]; best[i] = c; }
  }
  const rows = corners(h, spec.height, content[0], height), columns = corners(w, spec.width, content[1], width);
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

/** The windows of a photo, and the part of each that is kept: what lies nearer to its middle than to its neighbours'. */
export function windowsOf(spec, height, width) {
  const rows = along(height, spec.height), columns = along(width, spec.width);
  return rows.flatMap(row => columns.map(column => ({row, column})));
}

function along(length, window) {
  const step = window >= 256 ? 32 : 1, last = Math.ceil(Math.max(length - window, 0) / step) * step, begin = [];
  for (let start = 0; start < last; start += Math.max(Math.floor(window * 3 / 4 / step) * step, step)) begin.push(start);
  begin.push(last);
  const ends = begin.map((start, i) => i + 1 < begin.length ? Math.floor((start + begin[i + 1] + window) / 2) : length);
  return begin.map((start, i) => ({start, from: i ? ends[i - 1] : 0, to: ends[i]}));
}

/** Writes what is kept of a window's labels into those of the photo, `width` pixels wide. */
export function keep(labels, width, piece, {row, column}, spec) {
  for (let y = row.from; y < row.to; y++) {
    const at = (y - row.start) * spec.width - column.start;
    labels.set(piece.subarray(at + column.from, at + column.to), y * width + column.from);
  }
}

/** The part `content` of a map of the image, as one of `size`: written into `result`. */
export function nearestOf(values, spec, content, [height, width], result) {
  const columns = nearest(content[1], width), rows = nearest(content[0], height);
  for (let y = 0, p = 0; y < height; y++) for (let x = 0; x < width; x++) result[p++] = Number(values[rows[y] * spec.width + columns[x]]);
  return result;
}

export function nearest(content, target) {
  return Int32Array.from({length: target}, (_, i) => Math.floor((2 * i + 1) * content / (2 * target)));
}

/** For each target pixel: the cells before and after it, and the weight of the latter (align_corners=False). What lies
 *  beyond the content is padding, and is left out. */
function corners(cells, image, content, target) {
  const before = new Int32Array(target), after = new Int32Array(target), weight = new Float32Array(target);
  const last = Math.max(Math.floor((content - .5) * cells / image - .5 + 1e-6), 0);
  for (let i = 0; i < target; i++) {
    const position = Math.max((i + .5) * (content / target) * (cells / image) - .5, 0);
    before[i] = Math.min(Math.floor(position), last);
    after[i] = Math.min(before[i] + 1, last);
    weight[i] = position - before[i];
  }
  return {before, after, weight};
}
