use pillion::proxy::http::head::Fields;

/// The first bytes of the input say how the rest is cut.
pub fn steps_and_bytes(data: &[u8]) -> Option<([usize; 3], &[u8])> {
    let (steps, bytes) = data.split_first_chunk::<3>()?;
    Some((steps.map(|step| usize::from(step) + 1), bytes))
}

/// Where each piece ends.
pub fn ends(steps: [usize; 3], length: usize) -> impl Iterator<Item = usize> {
    let mut end = 0;
    steps.into_iter().cycle().map_while(move |step| {
        (end < length).then(|| {
            end = (end + step).min(length);
            end
        })
    })
}

pub fn list(fields: &Fields) -> Vec<(Vec<u8>, Vec<u8>)> {
    fields
        .iter()
        .map(|field| (field.name.to_vec(), field.value.to_vec()))
        .collect()
}
