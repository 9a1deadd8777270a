// The same answer as the Rust hello, through the fetch event of StarlingMonkey.
addEventListener('fetch', (event) => event.respondWith(new Response('Hello, world!\n')));
