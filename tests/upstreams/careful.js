// Express with express-idempotency, which answers a repeated key with the first reply and refuses
// one that comes with another body (417). `node careful.js PORT`
import express from 'express'
import { readFileSync } from 'node:fs'
import idempotency from 'express-idempotency'

const { users, events } = JSON.parse(readFileSync(new URL('strings.json', import.meta.url)))
const found = (response, item) => (item ? response.json(item) : response.sendStatus(404))

const app = express()
app.use(express.json())
app.get('/users', (_, response) => response.json(users))
app.get('/users/:id', ({ params }, response) =>
  found(response, users.find(({ id }) => id === params.id)))
app.get('/events', ({ query }, response) =>
  response.json(events.filter(({ userId }) => !query.userId || userId === query.userId)))
app.get('/events/:id', ({ params }, response) =>
  found(response, events.find(({ id }) => id === params.id)))
app.post('/events', idempotency.idempotency(), (request, response) => {
  if (idempotency.getSharedIdempotencyService().isHit(request)) return
  events.push(request.body)
  response.status(201).json(request.body)
})
// Four parameters make it the handler of errors; the middleware has set the status.
app.use((error, _request, response, _next) => response.json({ message: error.message }))
app.listen(Number(process.argv[2]), '127.0.0.1')
