// Counts visits by name: `GET /ann`.
import { State, PubSub } from '../index.js';

const state = State.open('statestore');

addEventListener('fetch', (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  const name = new URL(request.url).pathname.slice(1);
  // Reads, changes and writes again, guarded by an etag: no visit is lost.
  const visits = state.update(`visits/${name}`, (before = 0) => before + 1);
  if (visits === 1) PubSub.open('pubsub').publish('welcome', { name });
  return Response.json({ name, visits });
}
