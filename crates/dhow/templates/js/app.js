// The app's Dapr endpoint. Nothing listens there: the host answers in process.
const STATE = 'http://localhost:3500/v1.0/state/statestore';

addEventListener('fetch', (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  const { pathname } = new URL(request.url);
  if (pathname === '/') return new Response('Hello from {{name}}!\n');
  if (pathname === '/visits') return visits();
  return new Response('not found\n', { status: 404 });
}

// Counts in the state store, so the number survives a restart.
async function visits() {
  const stored = await fetch(`${STATE}/visits`);
  const before = stored.status === 200 ? await stored.json() : 0;
  const written = await fetch(STATE, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify([{ key: 'visits', value: before + 1 }]),
  });
  if (!written.ok) return new Response(await written.text(), { status: 502 });
  return new Response(`visit ${before + 1}\n`);
}
