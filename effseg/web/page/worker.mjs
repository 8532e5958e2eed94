// Runs the model off the page's thread, so that the page stays alive while it computes.
import {labelsOf, nearestOf} from './labels.mjs';

let session, spec, ort, provider;

async function open(wanted) {
  spec = await (await fetch('spec.json')).json();
  const model = await download('model.onnx', spec.bytes);
  if (wanted !== 'wasm' && await gpu()) {
    try {
      await create('webgpu', model);
      const size = [spec.height, spec.width];
      await run({rgba: new Uint8ClampedArray(spec.height * spec.width * 4), content: size, size});  // a graph the GPU cannot run says so here
      return;
    } catch (error) { console.info(`WebGPU is left for WebAssembly: ${error.message}`); }
  }
  await create('wasm', model);
}

async function gpu() {
  try { return Boolean(navigator.gpu && await navigator.gpu.requestAdapter()); } catch { return false; }
}

async function create(backend, model) {
  ort = await import(`./ort/ort.${backend}.bundle.min.mjs`);
  ort.env.wasm.wasmPaths = new URL('./ort/', import.meta.url).href;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, 4) : 1;
  ort.env.logLevel = 'error';
  session = await ort.InferenceSession.create(model, {executionProviders: [backend], graphOptimizationLevel: 'all'});
  const threads = ort.env.wasm.numThreads;
  provider = backend === 'webgpu' ? 'WebGPU' : `WebAssembly, ${threads} thread${threads > 1 ? 's' : ''}`;
}

async function download(address, size) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`${address} is not there (${response.status})`);
  const reader = response.body.getReader(), content = new Uint8Array(size);
  let done = 0;
  for (;;) {
    const {value, done: end} = await reader.read();
    if (end) break;
    if (done + value.length > size) throw new Error(`${address} is larger than its spec says`);
    content.set(value, done);
    done += value.length;
    postMessage({progress: done / size});
  }
  if (done < size) throw new Error(`${address} was cut off`);
  return content;
}

/** RGBA pixels of the artifact's size, 0-255, as they are: mean and std are inside the file; `content` of them become
 *  labels of `size`, and their confidence where the file has it. */
async function run({rgba, content, size}) {
  const pixels = new Uint8Array(spec.height * spec.width * 3);
  for (let i = 0, j = 0; i < rgba.length; i += 4) { pixels[j++] = rgba[i]; pixels[j++] = rgba[i + 1]; pixels[j++] = rgba[i + 2]; }
  const image = new ort.Tensor('uint8', pixels, [1, spec.height, spec.width, 3]);
  const results = await session.run({[session.inputNames[0]]: image}), result = results[session.outputNames[0]];
  const labels = labelsOf(await result.getData(), result.dims, spec, content, size);
  const confidence = results.confidence && nearestOf(await results.confidence.getData(), spec, content, size, new Float32Array(labels.length));
  image.dispose?.(); result.dispose?.(); results.confidence?.dispose?.();
  return {labels, confidence};
}

onmessage = async ({data}) => {
  try {
    if (data.open) {
      await open(data.wanted);
      postMessage({ready: true, spec, provider});
    } else {
      const started = performance.now(), {labels, confidence} = await run(data);
      postMessage({labels, confidence, milliseconds: performance.now() - started, number: data.number}, [labels.buffer]);
    }
  } catch (error) { postMessage({error: error.message || String(error), number: data.number}); }
};
