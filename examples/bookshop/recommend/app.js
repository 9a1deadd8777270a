// Recommends books: the same author's first, then what sells best. `GET /recommend/<isbn>`.
//
// It reads the shop's state at its Dapr endpoint, as it would with a Dapr sidecar beside it.
const STATE = 'http://localhost:3500/v1.0/state/shop';

addEventListener('fetch', (event) => event.respondWith(
  answer(event.request).catch((error) => Response.json({ error: String(error) }, { status: 500 })),
));

async function answer(request) {
  const isbn = new URL(request.url).pathname.split('/').pop();
  const [books, orders] = await Promise.all([read('catalogue'), read('orders')]);
  const book = books.find((candidate) => candidate.isbn === isbn);
  if (!book) return Response.json({ error: `no book ${isbn}` }, { status: 404 });

  const sold = new Map();
  for (const order of orders) sold.set(order.isbn, (sold.get(order.isbn) ?? 0) + order.quantity);
  const score = (other) => (other.author === book.author ? 1000 : 0) + (sold.get(other.isbn) ?? 0);
  const recommended = books
    .filter((other) => other.isbn !== isbn)
    .sort((a, b) => score(b) - score(a))
    .slice(0, 3)
    .map(({ isbn, title, author }) => ({ isbn, title, author, sold: sold.get(isbn) ?? 0 }));
  return Response.json({ isbn, title: book.title, recommended });
}

// An absent key is 204 No Content.
async function read(key) {
  const response = await fetch(`${STATE}/${key}`);
  if (response.status === 204) return [];
  if (!response.ok) throw new Error(`reading ${key}: ${response.status} ${await response.text()}`);
  return response.json();
}
