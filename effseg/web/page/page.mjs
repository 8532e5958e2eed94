import {contentOf, keep, nearest, windowsOf} from './labels.mjs';

// The page: an image or the camera in, the overlay out. What the model takes is in spec.json.
const $ = id => document.getElementById(id);
const UNKNOWN = 255;  // in the place of a label whose probability is below the slider's
const LONGEST = 1600;  // pixels of the longer side that are shown and saved
const worker = new Worker(new URL('./worker.mjs', import.meta.url), {type: 'module'});
const photo = $('photo').getContext('2d'), frame = document.createElement('canvas').getContext('2d'), overlay = $('overlay').getContext('2d');
const input = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
let spec, provider, waiting = null, number = 0, stream = null, result = null, chosen = null, rate = 0, lastFrame = 0;

worker.onmessage = ({data}) => {
  if (data.progress !== undefined) $('progress').value = data.progress;
  else if (data.ready) ready(data);
  else if (waiting && (data.number === waiting.number || data.number === undefined)) {
    const {resolve, reject} = waiting;
    waiting = null;
    data.error ? reject(new Error(data.error)) : resolve(data);
  } else if (data.error) broken(data.error);
};
worker.onerror = event => broken(event.message || 'its program cannot be loaded');
worker.postMessage({open: true, wanted: new URLSearchParams(location.search).get('on')});

function ready(data) {
  ({spec, provider} = data);
  $('name').textContent = document.title = spec.name;
  $('about').textContent = `${spec.classes.length} classes, ${spec.width}×${spec.height}, ${spec.precision}, ${(spec.bytes / 1e6).toFixed(1)} MB, on ${provider}. Nothing leaves this device.`;
  $('state').textContent = 'Drop a photo here';
  $('hint').textContent = 'or choose one, or open the camera';
  $('bound').hidden = spec.output !== 'labels+confidence';
  $('unknown').value = 100 * (spec.unknown_below ?? 0);
  for (const id of ['choose', 'camera']) $(id).disabled = false;
  document.body.dataset.ready = provider;
}

function broken(reason) {
  $('state').textContent = 'The model cannot be run';
  $('hint').textContent = '';
  say(`The model cannot be run in this browser: ${reason}`);
}

function say(text) {
  $('message').textContent = text;
  $('message').classList.toggle('shown', Boolean(text));
}

/** The whole image, or one of its windows, in the corner of one of the model's size; the rest has the mean color. */
function fit(source, ...place) {
  input.canvas.width = spec.width;
  input.canvas.height = spec.height;
  input.fillStyle = `rgb(${spec.mean.map(Math.round).join(' ')})`;
  input.fillRect(0, 0, spec.width, spec.height);
  input.imageSmoothingQuality = 'high';
  input.drawImage(source, ...place);
  return input.getImageData(0, 0, spec.width, spec.height).data;
}

function run(rgba, content, size) {
  return new Promise((resolve, reject) => {
    waiting = {resolve, reject, number: ++number};
    worker.postMessage({rgba, content, size, number}, [rgba.buffer]);
  });
}

/** The maps of a photo at its own size, window by window, then at the size that is shown. */
async function inWindows(source, width, height, [rows, columns]) {
  const whole = [spec.height, spec.width], maps = {};
  let milliseconds = 0;
  for (const window of windowsOf(spec, height, width)) {
    const done = await run(fit(source, -window.column.start, -window.row.start), whole, whole);
    milliseconds += done.milliseconds;
    for (const name of ['labels', 'confidence'].filter(name => done[name]))
      keep(maps[name] ??= new done[name].constructor(height * width), width, done[name], window, spec);
  }
  const down = nearest(height, rows), across = nearest(width, columns), shown = {milliseconds};
  for (const [name, map] of Object.entries(maps)) {
    shown[name] = new map.constructor(rows * columns);
    for (let y = 0, p = 0; y < rows; y++) for (let x = 0; x < columns; x++) shown[name][p++] = map[down[y] * width + across[x]];
  }
  return shown;
}

async function inOne(source, width, height, size) {
  const content = contentOf(spec, height, width);
  return run(fit(source, 0, 0, content[1], content[0]), content, size);
}

async function segment(source, width, height, live) {
  // kept now: a camera has moved on when the labels are there
  const scale = Math.min(1, LONGEST / Math.max(width, height));
  frame.canvas.width = Math.max(Math.round(width * scale), 1);
  frame.canvas.height = Math.max(Math.round(height * scale), 1);
  frame.imageSmoothingQuality = 'high';
  frame.drawImage(source, 0, 0, frame.canvas.width, frame.canvas.height);
  const labelled = spec.fit === 'windows' && !live ? inWindows : inOne;
  const {labels, confidence, milliseconds} = await labelled(source, width, height, [frame.canvas.height, frame.canvas.width]);
  photo.canvas.width = frame.canvas.width;
  photo.canvas.height = frame.canvas.height;
  photo.drawImage(frame.canvas, 0, 0);
  result = {labels, confidence, width: photo.canvas.width, height: photo.canvas.height};
  globalThis.segmentation = result;  // for scripts of those who look on
  $('stage').classList.add('filled');
  draw();
  legend();
  $('save').disabled = false;
  return milliseconds;
}

/** The labels, and what is unknown. */
function known() {
  const {labels, confidence} = result, bound = $('unknown').value / 100;
  return confidence && bound ? labels.map((label, p) => confidence[p] < bound ? UNKNOWN : label) : labels;
}

function draw() {
  const {width, height} = result, labels = known(), pixels = new ImageData(width, height), data = new Uint32Array(pixels.data.buffer);
  const colors = spec.palette.map(([r, g, b], index) => chosen === null || chosen === index ? (255 << 24 | b << 16 | g << 8 | r) >>> 0 : 0);
  for (let p = 0; p < labels.length; p++) data[p] = colors[labels[p]];
  overlay.canvas.width = width;
  overlay.canvas.height = height;
  overlay.putImageData(pixels, 0, 0);
  overlay.canvas.style.opacity = $('opacity').value / 100;
}

function legend() {
  const labels = known(), counts = new Uint32Array(UNKNOWN + 1);
  for (const label of labels) counts[label]++;
  const present = [...counts.keys()].filter(index => counts[index] || index === chosen).sort((a, b) => counts[b] - counts[a]);
  $('legend').replaceChildren(...present.map(index => {
    const item = document.createElement('li'), button = document.createElement('button'), color = document.createElement('i');
    const name = document.createElement('span'), share = document.createElement('span'), percent = 100 * counts[index] / labels.length;
    color.style.background = spec.palette[index] ? `rgb(${spec.palette[index].join(' ')})` : 'none';
    name.textContent = spec.classes[index] ?? 'unknown';
    share.textContent = `${percent.toFixed(1)} %`;
    button.style.setProperty('--share', `${percent}%`);
    button.setAttribute('aria-pressed', index === chosen);
    button.append(color, name, share);
    button.onclick = () => { chosen = chosen === index ? null : index; draw(); legend(); };
    item.append(button);
    return item;
  }));
}

async function open(file) {
  if (!spec || !file) return;
  stop();
  say('');
  let bitmap;
  try { bitmap = await createImageBitmap(file); } catch {
    return say(`${file.name || 'The file'} cannot be read as an image. JPEG, PNG, WebP and what else this browser shows are taken.`);
  }
  chosen = null;
  $('speed').textContent = 'Segmenting';
  try {
    const milliseconds = await segment(bitmap, bitmap.width, bitmap.height);
    $('speed').textContent = `${milliseconds.toFixed(0)} ms on ${provider}`;
  } catch (error) { $('speed').textContent = ''; say(`The model failed on this image: ${error.message}`); }
}

async function start() {
  say('');
  if (!navigator.mediaDevices?.getUserMedia)
    return say('The camera is open to pages from https or localhost only. Photos work here as well.');
  const video = document.createElement('video');
  try { stream = await navigator.mediaDevices.getUserMedia({video: {facingMode: 'environment', width: {ideal: 1280}}, audio: false}); } catch (error) {
    return say(`The camera cannot be opened: ${error.message}`);
  }
  Object.assign(video, {srcObject: stream, muted: true, playsInline: true});
  await video.play();
  $('camera').textContent = 'Stop';
  [rate, lastFrame] = [0, performance.now()];
  const own = stream;
  try {
    while (stream === own) {
      if (video.videoWidth) {
        await segment(video, video.videoWidth, video.videoHeight, true);
        const now = performance.now(), current = 1000 / (now - lastFrame);
        rate = rate ? .8 * rate + .2 * current : current;
        lastFrame = now;
        if (stream === own) $('speed').textContent = `${rate.toFixed(1)} frames/s on ${provider}`;
      }
      await new Promise(requestAnimationFrame);
    }
  } catch (error) { stop(); say(`The model failed on the camera's image: ${error.message}`); }
}

function stop() {
  stream?.getTracks().forEach(track => track.stop());
  stream = null;
  $('camera').textContent = 'Camera';
}

function save() {
  const canvas = document.createElement('canvas'), context = canvas.getContext('2d');
  Object.assign(canvas, {width: photo.canvas.width, height: photo.canvas.height});
  context.drawImage(photo.canvas, 0, 0);
  context.imageSmoothingEnabled = false;
  context.globalAlpha = $('opacity').value / 100;
  context.drawImage(overlay.canvas, 0, 0, canvas.width, canvas.height);
  canvas.toBlob(blob => {
    const link = Object.assign(document.createElement('a'), {href: URL.createObjectURL(blob), download: `${spec.name}.png`});
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }, 'image/png');
}

$('choose').onclick = () => $('file').click();
$('file').onchange = event => { const [file] = event.target.files; event.target.value = ''; open(file); };
$('camera').onclick = () => stream ? stop() : start();
$('save').onclick = save;
$('opacity').oninput = () => { overlay.canvas.style.opacity = $('opacity').value / 100; };
$('unknown').oninput = () => { if (result) { draw(); legend(); } };
addEventListener('paste', event => { if (event.clipboardData.files.length) open(event.clipboardData.files[0]); });
addEventListener('dragover', event => { event.preventDefault(); $('stage').classList.add('over'); });
addEventListener('dragleave', event => { if (!event.relatedTarget) $('stage').classList.remove('over'); });
addEventListener('drop', event => { event.preventDefault(); $('stage').classList.remove('over'); open(event.dataTransfer.files[0]); });
