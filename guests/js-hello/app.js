// The smallest JavaScript component; `/json` shows that requests are read and JSON is there.
addEventListener('fetch', (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  const { pathname } = new URL(request.url);
  if (pathname !== '/json') return new Response('hello from JavaScript\n');
  return Response.json({ method: request.method, path: pathname, body: await request.text() });
}
