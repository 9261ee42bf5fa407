import { defineConfig } from 'vite'

// Two pages, built to files that any web server or CDN can serve: names in /assets contain a hash of their content.
export default defineConfig({
  root: 'web',
  build: {
    outDir: '../dist',
    emptyOutDir: true,
    rollupOptions: { input: { storefront: 'web/index.html', admin: 'web/admin/index.html' } },
  },
})
