// Segments a photo as an app on transformers.js does: node segment.mjs MODEL_FOLDER PHOTO LABELS
// LABELS becomes a file of one byte per pixel, and each class that was found is printed with its pixels.
import { writeFileSync } from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

// from the folder that it was installed into, where this is run
const require = createRequire(resolve('package.json'));
const { env, pipeline, RawImage } = await import(pathToFileURL(require.resolve('@huggingface/transformers')));

const [model, photo, out] = process.argv.slice(2).map((path) => resolve(path));
env.allowRemoteModels = false;
env.localModelPath = dirname(model);
const segment = await pipeline('image-segmentation', basename(model));
const image = await RawImage.read(photo);
const labels = new Uint8Array(image.width * image.height).fill(255);
for (const { label, mask } of await segment(image)) {
    const number = segment.model.config.label2id[label];
    const found = mask.data.reduce((count, value, pixel) => (value ? ((labels[pixel] = number), count + 1) : count), 0);
    console.log(label, found);
}
writeFileSync(out, labels);
