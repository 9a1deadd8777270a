// A step of a workflow: counts the long ones of the words of a parameter. Files are beyond this compiler.
import { onStep } from '../index.js';

export const step = onStep(({ parameters }) => {
  const least = Number(parameters.least ?? '4');
  if (!Number.isInteger(least)) throw new Error(`least is ${parameters.least}, and no number`);
  const words = parameters.text.split(/\s+/).filter((word) => word);
  const long = words.filter((word) => word.length >= least);
  console.log(`${long.length} of ${words.length} words are long`);
  return { result: long.length, parameters: { first: long[0] ?? '' } };
});
