//! `GatewayClass`: who is to make a Gateway real. Here everything is ours, so it is read and changes nothing.

use crate::config::decode::Fields;

pub(super) fn read(fields: &mut Fields<'_, '_>) {
    fields.ignore(&["description"]);
    fields.required("controllerName", |c| c.owned_text());
    if fields.has("parametersRef") {
        let hint = "settings of this process stand in its sidecar.yaml";
        fields
            .cursor()
            .warning("`parametersRef` is not looked at", hint);
    }
    fields.ignore(&["parametersRef"]);
}
