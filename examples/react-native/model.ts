// The file of tools/export.py --for react-native-executorch, by the spec that lies beside it.
import type { ColorMap, SemanticSegmenterModel } from 'react-native-executorch';
import spec from './model.pte.spec.json';

// where the phone finds model.pte: on a server of yours; while you try, `python -m http.server` on a machine beside it
const MODEL = 'http://192.168.0.2:8000/model.pte';

if (spec.preset !== 'react-native-executorch')
  throw new Error(`model.pte is for ${spec.preset}; export it with --for react-native-executorch`);

export const size = { width: spec.width, height: spec.height };
export const classes: readonly string[] = spec.classes;

export const model: SemanticSegmenterModel<string> = {
  modelPath: MODEL,
  modelOpts: {
    resizeMode: 'stretch', // the fit of the spec
    interpolation: 'area', // as it shrinks photos: over all pixels
    outInterpolation: 'nearest', // of colors, which have nothing between them
    normalizeOpts: { alpha: 1, beta: 0 }, // mean and std are inside the file
    labels: classes,
  },
};

/** The colors of the data set, half transparent, for {@link model}'s masks. */
export const colors: ColorMap<string> = Object.fromEntries(
  spec.palette.map(([red = 0, green = 0, blue = 0], label) => [spec.classes[label], [red, green, blue, 140]])
);
