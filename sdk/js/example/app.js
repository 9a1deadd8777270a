// A small shop that uses every block: an order takes its items from the stock, is written down with a receipt, and is
// told to whoever subscribes; a job reminds of it. The tests run it, and its twins in the other languages.
import {
  Binding, Configuration, DhowError, Drop, Lock, PubSub, Secrets, State, invoke, jobs, onJob, onMessage,
} from '../index.js';

const state = State.open('statestore');

addEventListener('fetch', (event) => event.respondWith(
  answer(event.request).catch((error) => {
    const status = { conflict: 409, denied: 403 }[error.kind] ?? 500;
    return Response.json({ error: error instanceof DhowError ? error.kind : String(error) }, { status });
  }),
));

async function answer(request) {
  const [what, name] = new URL(request.url).pathname.slice(1).split('/');
  switch (`${request.method} ${what}`) {
    case 'GET prices': // asked for by the shop, in another app
      return Response.json({ cents: 250, for: request.headers.get('dapr-caller-app-id') });
    case 'GET stock': {
      const item = state.getItem(`stock/${name}`);
      return item ? Response.json({ count: item.value, etag: item.etag }) : notFound();
    }
    case 'PUT stock': {
      const { count, etag } = await request.json();
      state.set(`stock/${name}`, count, { etag });
      return Response.json({});
    }
    case 'DELETE stock':
      state.delete(`stock/${name}`);
      return Response.json({});
    case 'PUT orders':
      return order(name, await request.json());
    case 'GET orders': {
      const found = state.get(`order/${name}`);
      const [shipped, reminded] = [state.get(`shipped/${name}`), state.get(`reminded/${name}`)];
      return found ? Response.json({ ...found, shipped, reminded }) : notFound();
    }
    default:
      return notFound();
  }
}

const notFound = () => Response.json({ error: 'not-found' }, { status: 404 });

function order(id, { item, quantity }) {
  // One order of an item at a time; the lock ends with the work, however that ends.
  const { held, value } = Lock.open('lockstore').with(`stock/${item}`, 10, () => {
    const stock = state.getItem(`stock/${item}`);
    if (!stock || stock.value < quantity) return Response.json({ error: 'sold out' }, { status: 410 });

    const { cents } = invoke('prices', `/prices/${item}`).json();
    const currency = Configuration.open('settings').value('currency');
    const key = Secrets.open('secretstore').value('signing-key');
    const order = { id, item, quantity, total: `${(cents * quantity) / 100} ${currency}`, signed: key.length };

    // Both or none, and only if nobody else changed the stock.
    state.transaction()
      .set(`stock/${item}`, stock.value - quantity, { etag: stock.etag })
      .set(`order/${id}`, order, { firstWrite: true })
      .commit();
    Binding.open('receipts').invoke('create', JSON.stringify(order), { fileName: id });
    PubSub.open('pubsub').publish('placed', order);
    jobs.schedule(`remind-${id}`, { dueTime: '1ms', data: { id } });
    return Response.json(order);
  });
  return held ? value : Response.json({ error: 'locked' }, { status: 423 });
}

export const topicHandler = onMessage(async (event) => {
  const { id, quantity } = await shipment(event);
  if (quantity > 100) throw new Drop(`nobody ships ${quantity} at once`);
  state.set(`shipped/${id}`, event.topic);
});

async function shipment(event) {
  return event.json();
}

export const jobHandler = onJob((due) => {
  state.set(`reminded/${due.json().id}`, due.name);
});
