// The camera, and over it the class of every pixel.
import { Canvas, Image, Skia, AlphaType, ColorType, type SkImage } from '@shopify/react-native-skia';
import { useEffect, useState } from 'react';
import { StyleSheet, Text, useWindowDimensions, View } from 'react-native';
import { useSemanticSegmenter, type cv } from 'react-native-executorch';
import { Camera, useCameraDevice, useCameraPermission, useFrameOutput } from 'react-native-vision-camera';
import { scheduleOnRN } from 'react-native-worklets';
import { colors, model, size } from './model';

const FORMATS: Record<string, cv.ImageFormat> = { 'rgb-bgra-8-bit': 'bgra', 'rgb-rgba-8-bit': 'rgba' };

export function App() {
  const { width, height } = useWindowDimensions();
  const permission = useCameraPermission();
  const device = useCameraDevice('back');
  const segmenter = useSemanticSegmenter(model);
  const [mask, setMask] = useState<SkImage | null>(null);
  const segment = segmenter.segmentWorklet;

  useEffect(() => {
    if (!permission.hasPermission && permission.canRequestPermission) permission.requestPermission();
  }, [permission]);

  function show(pixels: ArrayBuffer, columns: number, rows: number) {
    const info = { width: columns, height: rows, alphaType: AlphaType.Unpremul, colorType: ColorType.RGBA_8888 };
    setMask(Skia.Image.MakeImage(info, Skia.Data.fromBytes(new Uint8Array(pixels)), 4 * columns));
  }

  const output = useFrameOutput({
    pixelFormat: 'rgb',
    targetResolution: size, // about the size of the file's image: the library stretches what it gets
    enablePhysicalBufferRotation: true,
    onFrame(frame) {
      'worklet';
      const format = FORMATS[frame.pixelFormat];
      if (segment && format) {
        const row = 4 * frame.width;
        const padded = new Uint8Array(frame.getPixelBuffer());
        const data = new Uint8Array(row * frame.height);
        for (let y = 0; y < frame.height; y++)
          data.set(padded.subarray(y * frame.bytesPerRow, y * frame.bytesPerRow + row), y * row);
        const found = segment({ data, width: frame.width, height: frame.height, format, layout: 'hwc' }, colors);
        scheduleOnRN(show, found.buffer.data.buffer as ArrayBuffer, frame.width, frame.height);
      }
      frame.dispose();
    },
  });

  const problem = segmenter.error?.message ?? (permission.hasPermission ? null : 'The camera is not allowed.');
  if (problem || !device || !segmenter.isReady)
    return (
      <View style={styles.message}>
        <Text>{problem ?? (device ? `Loading: ${segmenter.downloadProgress.toFixed(0)} %` : 'No camera.')}</Text>
      </View>
    );
  return (
    <View style={StyleSheet.absoluteFill}>
      <Camera style={StyleSheet.absoluteFill} device={device} isActive outputs={[output]} resizeMode="cover" />
      <Canvas style={StyleSheet.absoluteFill} pointerEvents="none">
        <Image image={mask} x={0} y={0} width={width} height={height} fit="cover" />
      </Canvas>
    </View>
  );
}

const styles = StyleSheet.create({ message: { flex: 1, alignItems: 'center', justifyContent: 'center' } });
