// Opens a file as react-native-executorch does: node schema.mjs PACKAGE METHODS LABELS
// METHODS is what the file says of its methods, LABELS the names of its classes, both JSON. What the library does
// natively is played: it loads no file and makes no tensors. The comparison of shapes is its own.
import { register } from 'node:module';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [folder, methods, labels] = process.argv.slice(2);
const native = { loadModel: () => ({ schema: JSON.parse(methods), dispose() {} }), createTensor: () => ({ dispose() {} }) };
globalThis.__rnexecutorch_jsi__ = native;
const worklets =
    'export const createWorkletRuntime = () => null;' +
    'export const runOnRuntimeAsync = async (runtime, call, ...given) => call(...given);';
const hooks = `export const resolve = (name, context, next) => name === 'react-native-worklets'
    ? { url: ${JSON.stringify(`data:text/javascript,${worklets}`)}, shortCircuit: true } : next(name, context);`;
register(`data:text/javascript,${encodeURIComponent(hooks)}`);

const task = resolve(folder, 'lib/module/extensions/cv/tasks/semanticSegmentation.js');
const { createSemanticSegmenter } = await import(pathToFileURL(task));
const normalizeOpts = { alpha: 1, beta: 0 };
const modelOpts = { resizeMode: 'stretch', interpolation: 'linear', outInterpolation: 'nearest', normalizeOpts };
try {
    await createSemanticSegmenter({ modelPath: '', modelOpts: { ...modelOpts, labels: JSON.parse(labels) } });
    console.log('taken');
} catch (error) {
    console.log(error.code, error.message);
}
