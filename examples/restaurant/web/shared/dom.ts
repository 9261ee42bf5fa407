type Content = Node | string | number
type Properties = Record<string, string | number | boolean | ((event: Event) => void)>

/** An element; texts are texts and never markup. */
export function element(tag: string, properties: Properties, ...content: Content[]): HTMLElement {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === 'function') made.addEventListener(name, value)
    else if (typeof value === 'boolean') made.toggleAttribute(name, value)
    else made.setAttribute(name, String(value))
  }
  made.append(...content.map((part) => (part instanceof Node ? part : String(part))))
  return made
}

export function byId(id: string): HTMLElement {
  const found = document.getElementById(id)
  if (!found) throw new Error(`The page has no #${id}.`)
  return found
}

/** Addresses within the page change without loading it: `show` draws what the address says. */
export function follow(within: string, show: () => void): (path: string) => void {
  const go = (path: string) => {
    history.pushState(null, '', path)
    show()
  }
  window.addEventListener('popstate', show)
  document.addEventListener('click', (event) => {
    const link = event.target instanceof Element ? event.target.closest('a') : null
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return
    const isHere = link.pathname === '/admin' || link.pathname.startsWith('/admin/') ? within === '/admin/' : within === '/'
    if (link.origin !== location.origin || !isHere) return
    event.preventDefault()
    go(link.pathname)
  })
  return go
}

export const money = (cents: number) => `€ ${(cents / 100).toFixed(2)}`
