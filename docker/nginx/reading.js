// In the viewers: whoever moves, scrolls or types is reading, and the sign-in is renewed as on any page; who has gone
// is signed out by the clock. Once it has ended, a line says so before images stop to come.
(() => {
  'use strict';
  const EVERY_MS = 45_000;
  let active = true; // the page was opened a moment ago
  let ended = null;
  // Where OHIF was opened (it writes another address over it). A series by its Orthanc id is no way back.
  const opened = document.currentScript.dataset.opened || '/';

  for (const what of ['pointermove', 'pointerdown', 'wheel', 'keydown', 'touchstart']) {
    addEventListener(what, () => { active = true; }, { capture: true, passive: true });
  }

  function say() {
    if (ended) return;
    ended = document.createElement('p');
    ended.setAttribute('role', 'alert');
    Object.assign(ended.style, {
      position: 'fixed', inset: '0 0 auto 0', margin: '0', padding: '10px 16px', zIndex: '2147483647',
      background: '#fff3cd', color: '#222', font: '16px sans-serif', textAlign: 'center',
    });
    const link = document.createElement('a');
    link.href = '/session?next=' + encodeURIComponent(opened);
    link.textContent = 'Entrar de novo · Sign in again';
    link.style.color = '#0b4f8a';
    ended.append('A sua sessão terminou. Your sign-in has ended. ', link);
    document.body.append(ended);
  }

  async function renew() {
    if (!active) return;
    active = false;
    try {
      const answer = await fetch('/session/renew', { credentials: 'same-origin', cache: 'no-store' });
      if (answer.status === 401) say();
      else if (answer.ok && ended) { ended.remove(); ended = null; }
      else if (!answer.ok) active = true; // the RIS is away: again with the next round
    } catch {
      active = true;
    }
  }

  setInterval(renew, EVERY_MS);
})();
